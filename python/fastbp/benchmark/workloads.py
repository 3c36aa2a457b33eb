"""What is timed: networks to train, calls that must be short, and one whole job.

A workload knows its data, its start and its arithmetic; every contestant makes them from the same
seeds, so that all train the same network on the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ACTIVATIONS = ("relu", "tanh", "gelu_tanh")
OPTIMIZERS = ("adam", "adamw", "sgd")
LEARNING_RATE = 1e-3
JOB_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01  # of AdamW
QUICK_FLOP = 1e9  # what --quick leaves out costs more than this in a step


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    kind "train": steps on a chain of dense layers with `sizes` columns, `batch` rows each;
    `optimizer` is adam, adamw or sgd.
    kind "predict": `batch` rows through the chain. kind "matmul": sizes are rows, terms, columns.
    kind "job": handwritten digits, from the description of the network to the trained model.
    """

    kind: str
    sizes: tuple[int, ...]
    batch: int = 1
    group: str = "steps"
    activation: str = "relu"
    epochs: int = 1
    optimizer: str = "adam"

    @property
    def name(self) -> str:
        chain = "-".join(map(str, self.sizes))
        if self.kind == "matmul":
            rows, terms, columns = self.sizes
            return f"matmul {rows}x{terms} @ {terms}x{columns}"
        if self.kind == "job":
            return f"digits {chain} b{self.batch}, {self.epochs} epochs"
        unusual = [
            f" {name}" for name in (self.activation, self.optimizer) if name not in ("relu", "adam")
        ]
        return f"{'predict ' * (self.kind == 'predict')}{chain} b{self.batch}{''.join(unusual)}"

    @property
    def unit(self) -> str:
        """What a time is the time of."""
        return {"train": "step", "job": "job"}.get(self.kind, "call")

    @property
    def products(self) -> list[int]:
        """Weights of each layer."""
        return [a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)]

    @property
    def parameters(self) -> int:
        return sum(self.products) + sum(self.sizes[1:])

    @property
    def flop(self) -> int:
        """Of one unit; a multiply-add counts as two.

        A training step has the forward product, the weight gradient and, but for the first layer,
        the input gradient.
        """
        if self.kind == "matmul":
            rows, terms, columns = self.sizes
            return 2 * rows * terms * columns
        if self.kind == "predict":
            return 2 * self.batch * sum(self.products)
        step = 2 * self.batch * (3 * sum(self.products) - self.products[0])
        return step * self.epochs * (1437 // self.batch) if self.kind == "job" else step

    def traffic(self, itemsize: int) -> int:
        """Bytes that one unit has to read or write, however it is programmed.

        Training reads and writes each parameter and its two Adam moments (with SGD there are none),
        and reads the batch.
        """
        if self.kind == "matmul":
            rows, terms, columns = self.sizes
            return itemsize * (rows * terms + terms * columns + rows * columns)
        rows = self.batch * (self.sizes[0] + self.sizes[-1])
        passes = 1 if self.kind == "predict" else 2 if self.optimizer == "sgd" else 6
        return itemsize * (rows + passes * self.parameters)

    def footprint(self, itemsize: int) -> int:
        """Bytes in use during one unit: says which memory they come from."""
        if self.kind in ("matmul", "predict"):
            return self.traffic(itemsize)
        return itemsize * (3 * self.parameters + 2 * self.batch * sum(self.sizes))

    @property
    def steps(self) -> int:
        """Steps of an epoch: at most 100, and at most 32 MiB of data."""
        return max(2, min(100, (1 << 23) // (self.batch * self.sizes[0])))

    @property
    def checked_steps(self) -> int:
        """Steps after which the parameters are compared with the float64 reference."""
        return 8 if self.flop < 1e10 else 2

    @property
    def binary(self) -> bool:
        return self.sizes[-1] == 1

    def start(self, dtype: str = "float32") -> list[Array]:
        """Kernel (inputs, units) and bias (units,) of each layer in turn: Glorot's uniform."""
        rng = np.random.default_rng(0)
        made: list[Array] = []
        for inputs, units in zip(self.sizes, self.sizes[1:], strict=False):
            limit = (6 / (inputs + units)) ** 0.5
            kernel = rng.random((inputs, units), np.float32) * np.float32(2 * limit)
            made += [kernel - np.float32(limit), np.zeros(units, np.float32)]
        return [array.astype(dtype, copy=False) for array in made]

    def data(self, dtype: str = "float32") -> tuple[Array, Array]:
        """Random rows; labels depend on the first inputs, so that there is something to learn."""
        rng = np.random.default_rng(1)
        rows = max(self.steps, self.checked_steps) * self.batch
        x = rng.standard_normal((rows, self.sizes[0]), np.float32).astype(dtype, copy=False)
        if self.binary:
            return x, (x[:, :1] > 0).astype(dtype)
        columns = min(self.sizes[-1], self.sizes[0])
        return x, x[:, :columns].argmax(axis=1).astype(np.int64)

    def matrices(self, dtype: str = "float32") -> tuple[Array, Array]:
        rng = np.random.default_rng(2)
        rows, terms, columns = self.sizes
        return (
            rng.standard_normal((rows, terms)).astype(dtype),
            rng.standard_normal((terms, columns)).astype(dtype),
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Workload:
        """From its form in a request or a saved document; other keys are ignored.

        Documents of before 2026-11-22 have no optimizer: it was Adam.
        """
        fields = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})


def _train(sizes: Sequence[int], batch: int, group: str, activation: str = "relu") -> Workload:
    return Workload("train", tuple(sizes), batch, group, activation)


STEPS = (
    _train((2, 16, 1), 1, "steps"),
    _train((2, 16, 1), 32, "steps"),
    _train((4, 32, 3), 16, "steps"),
    _train((16, 64, 64, 4), 64, "steps"),
    _train((54, 256, 128, 7), 256, "steps"),
    _train((784, 128, 10), 32, "steps"),
    _train((784, 256, 128, 10), 128, "steps"),
    _train((32, 64, 64, 64, 64, 16), 4096, "steps"),
    _train((784, 1024, 1024, 10), 512, "steps"),
)
LARGE = (
    _train((2048,) * 4, 512, "large"),
    _train((4096,) * 4, 1024, "large"),
)
LATENCY = (
    Workload("predict", (64, 128, 10), 1, "latency"),
    Workload("predict", (64, 128, 10), 32, "latency"),
    Workload("matmul", (4, 4, 4), 1, "latency"),
    Workload("matmul", (64, 64, 64), 1, "latency"),
)
JOBS = (Workload("job", (64, 128, 10), 32, "jobs", epochs=30),)
WIDTHS = (8, 16, 24, 32, 45, 46, 64, 67, 96, 128, 129, 192, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 3, 4, 8, 16, 17, 32, 64, 100, 128, 256, 512, 1024)
SWEEP = (
    *(_train((width, width, width, 10), 64, "widths") for width in WIDTHS),
    *(_train((64, 64, 64, 64), batch, "batches") for batch in BATCHES),
    _train((31, 67, 45, 3), 17, "odd"),
    _train((13, *(16,) * 8, 2), 50, "odd"),
    _train((100, 4097, 3), 33, "odd"),
    _train((129, 129, 129, 5), 129, "odd"),
    _train((64, 128, 128, 10), 64, "odd", "tanh"),
    *(
        Workload("matmul", shape, 1, "matmul")
        for shape in (
            (16, 16, 16),
            (65, 65, 65),
            (256, 256, 256),
            (1024, 1024, 1024),
            (32, 784, 128),
            (784, 32, 128),
            (4096, 64, 64),
            (1, 1024, 1024),
            (1024, 1024, 1),
        )
    ),
)


def random_steps(count: int, seed: int) -> list[Workload]:
    """Training steps that no table names: the same ones for the same seed.

    A third each are chains of up to four hidden layers of any width, deep and narrow ones, and
    ones with a single wide layer; widths and batches are spread evenly on a log scale, and no step
    has more than QUICK_FLOP operations.
    """
    rng = np.random.default_rng(seed)

    def between(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    shapes: tuple[Callable[[], list[int]], ...] = (
        lambda: [between(1, 700) for _ in range(rng.integers(1, 5))],
        lambda: [between(3, 70)] * int(rng.integers(5, 13)),
        lambda: [between(700, 5000)],
    )
    found: list[Workload] = []
    while len(found) < count:
        hidden = shapes[len(found) % len(shapes)]()
        step = Workload(
            "train",
            (between(1, 1000), *hidden, between(1, 100)),
            between(1, 1000),
            "random",
            str(rng.choice(ACTIVATIONS)),
            optimizer=str(rng.choice(OPTIMIZERS)),
        )
        if step.flop <= QUICK_FLOP:
            found.append(step)
    return found


def chosen(
    *,
    only: str = "",
    large: bool = False,
    sweep: bool = False,
    quick: bool = False,
    random: int = 0,
    seed: int = 0,
) -> list[Workload]:
    """The workloads of a run, in the order of its table; of random ones nothing else."""
    if random:
        return [workload for workload in random_steps(random, seed) if only in workload.name]

    def candidates() -> Iterator[Workload]:
        yield from STEPS
        if large:
            yield from LARGE
        yield from LATENCY
        if find_spec("sklearn") is not None:  # which brings the digits
            yield from JOBS
        if sweep:
            yield from SWEEP

    return [
        workload
        for workload in candidates()
        if only in workload.name
        and not (quick and workload.kind == "train" and workload.flop > QUICK_FLOP)
    ]
