"""PyTorch: the usual loop of a network with the fused optimizer, eager or compiled (network and
loss by torch.compile, which needs a C++ compiler); bfloat16 by autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

import fastbp as bp

from ..workloads import JOB_LEARNING_RATE, LEARNING_RATE, WEIGHT_DECAY, Array, Workload
from . import Contestant, task


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    makers = {"train": _train, "predict": _predict, "matmul": _matmul, "job": _job}
    return makers[workload.kind](contestant, workload, reference)


class Trainer:
    """A network at the workload's start with its loss and optimizer."""

    def __init__(
        self,
        workload: Workload,
        dtype: str = "float32",
        learning_rate: float = LEARNING_RATE,
        *,
        compiled: bool = False,
    ) -> None:
        layers: list[Any] = []
        between = {
            "relu": torch.nn.ReLU,
            "tanh": torch.nn.Tanh,
            "gelu_tanh": lambda: torch.nn.GELU(approximate="tanh"),
        }[workload.activation]
        parameters = workload.start()
        for kernel, bias in zip(parameters[::2], parameters[1::2], strict=True):
            layer = torch.nn.Linear(*kernel.shape)
            layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.T))
            layer.bias.data = torch.from_numpy(bias)
            layers += [layer, between()]
        self.net = torch.nn.Sequential(*layers[:-1])
        rule: Any = {
            "adam": torch.optim.Adam,
            "adamw": partial(torch.optim.AdamW, weight_decay=WEIGHT_DECAY),
            "sgd": torch.optim.SGD,
        }[workload.optimizer]
        self.optimizer = rule(self.net.parameters(), lr=learning_rate, fused=True)
        self.loss = torch.nn.BCEWithLogitsLoss() if workload.binary else torch.nn.CrossEntropyLoss()
        self.loss_of: Callable[[Any, Any], Any] = lambda x, y: self.loss(self.net(x), y)
        if compiled:
            self.loss_of = torch.compile(self.loss_of, fullgraph=True, dynamic=False)
        self.bfloat16 = dtype == "bfloat16"

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else nullcontext()

    def step(self, x: Any, y: Any) -> None:
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.loss_of(x, y)
        loss.backward()
        self.optimizer.step()

    def epoch(self, x: Any, y: Any, batch: int, order: Any) -> None:
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            self.step(x[rows], y[rows])

    def parameters(self) -> Iterable[Array]:
        """In fastbp's order and layout."""
        for parameter in self.net.parameters():
            yield parameter.detach().numpy().T


def _fastest(call: Callable[[], object]) -> int:
    return task.fastest(call, (bp.get_num_threads(), 1), torch.set_num_threads)


def _train(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    start = partial(Trainer, workload, contestant.dtype, compiled=contestant.form == "compile")
    checked = start()
    x, y = map(torch.from_numpy, task.checked_batches(workload))
    checked.epoch(x, y, workload.batch, torch.arange(len(x)))
    difference = reference.difference(checked.parameters())
    x, y = map(torch.from_numpy, workload.data())
    trainer = start()
    threads = _fastest(lambda: trainer.step(x[: workload.batch], y[: workload.batch]))

    def epoch() -> None:
        trainer.epoch(x, y, workload.batch, torch.randperm(len(x)))

    return task.Task(epoch, workload.steps, difference, threads)


def _predict(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    net, rows = Trainer(workload).net, task.predicted_rows(workload)
    x = torch.from_numpy(rows)

    def predict() -> Any:
        with torch.inference_mode():
            return net(x)

    threads = _fastest(predict)
    return task.Task(predict, 1, task.apart(predict(), task.logits(workload, rows)), threads)


def _matmul(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    left, right = workload.matrices()
    a, b = torch.from_numpy(left), torch.from_numpy(right)
    out = torch.empty(a.shape[0], b.shape[1])
    difference = task.apart(torch.mm(a, b, out=out), left.astype(np.float64) @ right)
    threads = _fastest(lambda: torch.mm(a, b, out=out))
    return task.Task(lambda: torch.mm(a, b, out=out), 1, difference, threads)


def _job(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    rows, test_rows, row_labels, labels = task.digits()
    x, y = torch.from_numpy(rows), torch.from_numpy(row_labels)

    def job() -> Any:
        trainer = Trainer(workload, learning_rate=JOB_LEARNING_RATE)
        for _ in range(workload.epochs):
            trainer.epoch(x, y, workload.batch, torch.randperm(len(x)))
        return trainer.net

    threads = _fastest(job)
    outputs = job()(torch.from_numpy(test_rows)).detach().numpy()
    return task.Task(job, 1, task.errors(outputs, labels), threads)
