"""Microseconds per training step: forward, loss, backward and Adam, float32, inside `fit`.

Each workload is a chain of dense layers with relu between. fastbp runs whole epochs in one native
call; the peers run the loop that their users write: NumPy (numpy_net.py), and PyTorch and
scikit-learn where they are installed. All are timed in turn in one run. Before timing, fastbp and
the NumPy loop train from the same start on the same batches and must agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import harness
import numpy as np
from numpy_net import NumpyNet
from peaks import peak_gflops

import fastbp as bp

CHECKED_STEPS = 8
# Of all parameters from NumPy's, relative to the way they have gone since the start. Adam's first
# steps are as long for a gradient that is rounding noise as for any other, hence not 1e-6.
MAX_DIFFERENCE = 1e-2


@dataclass(frozen=True)
class Workload:
    """Layer widths from inputs to outputs, and the batch size."""

    sizes: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} b{self.batch}"

    @property
    def flop(self) -> int:
        """Of one step: forward, weight gradients, input gradients of all layers but the first."""
        products = [a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)]
        return 2 * self.batch * (3 * sum(products) - products[0])

    @property
    def steps(self) -> int:
        """Steps of an epoch: at most 64, and at most 32 MiB of data."""
        return max(2, min(64, (1 << 23) // (self.batch * self.sizes[0])))

    def data(self) -> tuple[Any, Any]:
        """Random rows; labels depend on the first inputs, so that there is something to learn."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal((self.steps * self.batch, self.sizes[0])).astype(np.float32)
        outputs = self.sizes[-1]
        if outputs == 1:
            return x, (x[:, :1] > 0).astype(np.float32)
        columns = min(outputs, self.sizes[0])
        return x, x[:, :columns].argmax(axis=1).astype(np.int64)


WORKLOADS = (
    Workload((2, 16, 1), 1),
    Workload((2, 16, 1), 32),
    Workload((4, 32, 3), 16),
    Workload((16, 64, 64, 4), 64),
    Workload((54, 256, 128, 7), 256),
    Workload((784, 128, 10), 32),
    Workload((784, 256, 128, 10), 128),
    Workload((32, 64, 64, 64, 64, 16), 4096),
    Workload((784, 1024, 1024, 10), 512),
)


def compiled(workload: Workload) -> Any:
    layers = [bp.Dense(units, activation="relu") for units in workload.sizes[1:-1]]
    model = bp.Sequential([*layers, bp.Dense(workload.sizes[-1])], seed=0)
    binary = workload.sizes[-1] == 1
    loss = "binary_cross_entropy_with_logits" if binary else "softmax_cross_entropy"
    model.compile(optimizer=bp.Adam(1e-3), loss=loss, device="cpu", dtype="float32")
    model.build(workload.sizes[0])
    return model


def fastbp_epoch(workload: Workload, x: Any, y: Any, epochs: int) -> Callable[[], object]:
    model = compiled(workload)
    return lambda: model.fit(x, y, epochs=epochs, batch_size=workload.batch, verbose=0)


def numpy_epoch(workload: Workload, x: Any, y: Any) -> Callable[[], object]:
    net = NumpyNet(list(compiled(workload).parameters().values()))
    rng = np.random.default_rng(0)
    return lambda: net.train(x, y, workload.batch, 1, rng)


def torch_epoch(workload: Workload, x: Any, y: Any) -> Callable[[], object] | None:
    try:
        import torch
    except ImportError:
        return None
    layers: list[Any] = []
    for inputs, units in zip(workload.sizes, workload.sizes[1:], strict=False):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    binary = workload.sizes[-1] == 1
    criterion = torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss()
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)

    def epoch() -> None:
        order = torch.randperm(len(inputs))
        for start in range(0, len(inputs), workload.batch):
            rows = order[start : start + workload.batch]
            optimizer.zero_grad()
            criterion(net(inputs[rows]), targets[rows]).backward()
            optimizer.step()

    return epoch


def sklearn_epoch(workload: Workload, x: Any, y: Any) -> Callable[[], object] | None:
    """`partial_fit` is one epoch in mini-batches, without the early-stopping bookkeeping."""
    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        return None
    model = MLPClassifier(workload.sizes[1:-1], alpha=0, batch_size=workload.batch)
    labels = y.reshape(-1).astype(np.int64)
    classes = np.arange(max(2, workload.sizes[-1]))
    return lambda: model.partial_fit(x, labels, classes=classes)


def difference(workload: Workload, x: Any, y: Any) -> float:
    """After a few steps from one start on the same batches, in the Euclidean norm."""
    rows = CHECKED_STEPS * workload.batch
    model = compiled(workload)
    net = NumpyNet(list(model.parameters().values()))
    start = flat(net.parameters)
    model.fit(x[:rows], y[:rows], batch_size=workload.batch, shuffle=False, verbose=0)
    net.train(x[:rows], y[:rows], workload.batch, 1, None)
    mine, other = flat(model.parameters().values()), flat(net.parameters)
    return float(np.linalg.norm(mine - other) / np.linalg.norm(other - start))


def flat(arrays: Iterable[Any]) -> Any:
    return np.concatenate([np.ravel(array).astype(np.float64) for array in arrays])


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    x, y = workload.data()
    apart = difference(workload, x, y)
    if not apart <= MAX_DIFFERENCE:
        raise SystemExit(f"{workload.name}: parameters are {apart:.1e} from NumPy's")
    # The peers get one epoch per measurement, fastbp as many as fill about the same time.
    epochs = max(1, min(200, 20_000_000 // (workload.flop * workload.steps)))
    calls = {
        "fastbp": fastbp_epoch(workload, x, y, epochs),
        "numpy": numpy_epoch(workload, x, y),
        "torch": torch_epoch(workload, x, y),
        "scikit-learn": sklearn_epoch(workload, x, y),
    }
    timings = harness.interleaved({k: c for k, c in calls.items() if c}, repeats, at_least=0.02)
    steps = {name: workload.steps * (epochs if name == "fastbp" else 1) for name in timings}
    model, one_x, one_y = compiled(workload), x[: workload.batch], y[: workload.batch]
    step = harness.interleaved({"step": lambda: model.step(one_x, one_y)}, repeats, at_least=0.02)
    return {
        "workload": workload.name,
        "flop": workload.flop,
        "difference": apart,
        "per_step": {name: timing.scaled(steps[name]) for name, timing in timings.items()},
        "model_step": step["step"],
    }


def row(result: dict[str, Any], peak: float, peers: list[str]) -> list[str]:
    mine = result["per_step"]["fastbp"]
    ratios = [
        f"{result['per_step'][peer].median / mine.median:.1f}x"
        if peer in result["per_step"]
        else ""
        for peer in peers
    ]
    return [
        result["workload"],
        harness.microseconds(mine.median),
        f"{mine.spread:.0%}",
        f"{result['flop'] / mine.median / 1e9 / peak:.0%}",
        harness.microseconds(result["model_step"].median),
        *ratios,
        f"{result['difference']:.0e}",
    ]


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="workloads whose name has TEXT")
    arguments = parser.parse_args()
    harness.announce()
    peak = peak_gflops("float32")
    peers = ["numpy", *(name for name in ("torch", "scikit-learn") if name in harness.peers())]
    print(f"probed peak {peak:.1f} GFLOP/s, {bp.get_num_threads()} threads; us per step:\n")
    head = ["workload", "fit", "spread", "peak", "step()", *peers, "differs"]
    results = []
    for workload in WORKLOADS:
        if arguments.only in workload.name:
            results.append(measure(workload, arguments.repeats))
            print(f"{workload.name}: done", file=sys.stderr, flush=True)
    print(harness.table([head, *(row(result, peak, peers) for result in results)]))
    harness.write(arguments.json, "step", {"peak_gflops": peak, "workloads": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
