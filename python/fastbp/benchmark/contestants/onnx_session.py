"""ONNX Runtime: one call of a session with the network, on one thread, which suits few rows."""

from __future__ import annotations

import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

from ..workloads import Workload
from . import Contestant, task

OPSET, IR_VERSION = 17, 8  # old enough for every release of ONNX Runtime 1.13 and later


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        network(workload), options, providers=["CPUExecutionProvider"]
    )
    x = task.predicted_rows(workload)
    feed = {"x": x}
    difference = task.apart(session.run(None, feed)[0], task.logits(workload, x))
    return task.Task(lambda: session.run(None, feed), 1, difference)


def network(workload: Workload) -> bytes:
    """The chain as an ONNX model: Gemm and Relu in turn."""
    nodes, initializers = [], []
    parameters = workload.start()
    current, layers = "x", len(parameters) // 2
    for i in range(layers):
        names = (f"kernel{i}", f"bias{i}")
        for name, array in zip(names, parameters[2 * i : 2 * i + 2], strict=True):
            initializers.append(numpy_helper.from_array(array, name))
        nodes.append(helper.make_node("Gemm", [current, *names], [f"z{i}"]))
        current = f"z{i}"
        if i + 1 < layers:
            nodes.append(helper.make_node("Relu", [current], [f"y{i}"]))
            current = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, workload.sizes[0]])],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, [None, workload.sizes[-1]])],
        initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized
