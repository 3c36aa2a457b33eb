"""What fastbp declares of cuBLASLt's C interface, held against NVIDIA's own header, where that is
installed (pip install nvidia-cublas nvidia-cuda-runtime, or a CUDA toolkit)."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

import cuda_library

pytestmark = [
    pytest.mark.nvcc,
    pytest.mark.skipif(not cuda_library.has_nvcc(), reason="nvcc is not on PATH"),
]

# Ours and theirs.
VALUES = {
    "kSuccess": "CUBLAS_STATUS_SUCCESS",
    "kInvalidValue": "CUBLAS_STATUS_INVALID_VALUE",
    "kExecutionFailed": "CUBLAS_STATUS_EXECUTION_FAILED",
    "kNotSupported": "CUBLAS_STATUS_NOT_SUPPORTED",
    "kFloat32": "CUDA_R_32F",
    "kFloat16": "CUDA_R_16F",
    "kBfloat16": "CUDA_R_16BF",
    "kComputeFloat32": "CUBLAS_COMPUTE_32F",
    "kComputeTf32": "CUBLAS_COMPUTE_32F_FAST_TF32",
    "kPlain": "CUBLAS_OP_N",
    "kTransposed": "CUBLAS_OP_T",
    "kOperationOfA": "CUBLASLT_MATMUL_DESC_TRANSA",
    "kOperationOfB": "CUBLASLT_MATMUL_DESC_TRANSB",
    "kEpilogue": "CUBLASLT_MATMUL_DESC_EPILOGUE",
    "kBiasPointer": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    "kAuxPointer": "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER",
    "kAuxLeadingDimension": "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD",
    "kDefault": "CUBLASLT_EPILOGUE_DEFAULT",
    "kBias": "CUBLASLT_EPILOGUE_BIAS",
    "kReluBias": "CUBLASLT_EPILOGUE_RELU_BIAS",
    "kGeluBias": "CUBLASLT_EPILOGUE_GELU_BIAS",
    "kReluAuxBias": "CUBLASLT_EPILOGUE_RELU_AUX_BIAS",
    "kGeluAuxBias": "CUBLASLT_EPILOGUE_GELU_AUX_BIAS",
    "kReluBackward": "CUBLASLT_EPILOGUE_DRELU",
    "kGeluBackward": "CUBLASLT_EPILOGUE_DGELU",
    "kSumsOfA": "CUBLASLT_EPILOGUE_BGRADA",
    "kMostWorkspace": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "kReductionSchemes": "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
    "kLeastAlignmentOfA": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
    "kLeastAlignmentOfB": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES",
    "kLeastAlignmentOfC": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES",
    "kLeastAlignmentOfD": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
    "kReductionInComputeType": "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE",
}
# Of each function, the sizes of what goes in and comes out.
SOURCE = """
#include <cublasLt.h>
#include <type_traits>
#include "engine/cuda/blas_interface.h"
using namespace fastbp::cuda;
{asserts}
static_assert(sizeof(lt::Algorithm) == sizeof(cublasLtMatmulAlgo_t), "");
static_assert(sizeof(lt::Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t), "");
static_assert(offsetof(lt::Heuristic, workspace) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize), "");
static_assert(offsetof(lt::Heuristic, state) ==
              offsetof(cublasLtMatmulHeuristicResult_t, state), "");
static_assert(sizeof(lt::Status) == sizeof(cublasStatus_t), "");
static_assert(sizeof(lt::DataType) == sizeof(cudaDataType), "");
static_assert(sizeof(lt::ComputeType) == sizeof(cublasComputeType_t), "");
static_assert(sizeof(lt::DescriptionAttribute) == sizeof(cublasLtMatmulDescAttributes_t), "");

template <class... A> struct Sizes;
template <class R, class... A> Sizes<std::integral_constant<std::size_t, sizeof(R)>,
  std::integral_constant<std::size_t, sizeof(A)>...> sizes(R (*)(A...));
#define FBP_SAME(name, result, list)                                                       \\
  static_assert(std::is_same_v<decltype(sizes(lt::Functions().name)),                      \\
                               decltype(sizes(&cublasLt##name))>, #name);
FBP_BLAS_FUNCTIONS(FBP_SAME)
"""


def test_declarations_are_nvidias(tmp_path: Path) -> None:
    package = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "include"
    compiler = ["nvcc", "-std=c++17", f"-I{cuda_library.CSRC}", f"-I{package}", "-c"]
    source = tmp_path / "held.cpp"
    source.write_text("#if !__has_include(<cublasLt.h>)\n#error absent\n#endif\n")
    target = ["-o", str(tmp_path / "held.o")]
    if subprocess.run([*compiler, source, *target], capture_output=True, check=False).returncode:
        pytest.skip("no cublasLt.h: pip install nvidia-cublas")
    asserts = "\n".join(
        f'static_assert(long(lt::{ours}) == long({theirs}), "{ours}");'
        for ours, theirs in VALUES.items()
    )
    source.write_text(SOURCE.format(asserts=asserts))
    command = [*compiler, str(source), *target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
