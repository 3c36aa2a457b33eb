"""The wheel fastbp-cuda13: what is in it, what it is called, and that fastbp finds it installed.

Built as `make cuda-wheel` does, for one architecture (slow: it needs nvcc and a minute).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cuda_library
import fastbp as bp

ROOT = Path(__file__).parent.parent


def test_the_extra_asks_for_the_same_version() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    version = re.findall(r'^version = "(.+?)"', project, re.M)
    assert re.findall(r'^cuda13 = \["fastbp-cuda13==(.+?)"\]', project, re.M) == version


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder)]
    architecture = "-Ccmake.define.FASTBP_CUDA_ARCHITECTURES=90"
    subprocess.run([*command, architecture, str(ROOT / "packaging" / "cuda13")], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
@pytest.mark.skipif(not cuda_library.has_nvcc(), reason="nvcc is not on PATH")
def test_wheel(wheel: Path, tmp_path: Path) -> None:
    assert re.fullmatch(
        rf"fastbp_cuda13-{re.escape(bp.__version__)}-py3-none-\w*linux\w*\.whl", wheel.name
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {"fastbp_cuda13/__init__.py", "fastbp_cuda13/libfastbp_cuda.so"}
    metadata = next(tmp_path.glob("*.dist-info/METADATA")).read_text()
    assert "Requires-Dist" not in metadata and f"Version: {bp.__version__}\n" in metadata
    environment = {name: value for name, value in os.environ.items() if name[:7] != "FASTBP_"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path), str(Path(bp.__file__).parent.parent)]
    )
    program = "import fastbp, json; print(json.dumps(fastbp.info()['cuda']))"
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(said.stdout)
    assert found["library"] == str(tmp_path / "fastbp_cuda13" / "libfastbp_cuda.so")
    assert found["version"] == bp.__version__ and found["architectures"] == ["9.0"]
