"""Training steps of recurrent layers beside PyTorch and JAX, over shapes of all sorts.

    python bench/recurrent.py [--cells lstm,gru,rnn] [--shapes 64x256x32x64,...] [--peers torch,jax]

A shape is steps x units x batch x features. A step is forward, mse of a Dense behind the last
state, backward and Adam, float32, two threads; every contestant is a process of its own. PyTorch:
nn.LSTM and so on; JAX: lax.scan over the steps, jitted, and 32 training steps to a call where they
are short. Medians of at least three calls; compare within one run of an otherwise idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPES = (
    "64x256x32x64,32x32x16x16,1x1x1x1,1x67x32x8,32x1x16x1,64x67x32x3,8x67x1x5,16x8x1x4,100x10x32x1,"
    "20x17x5x3,5x300x7x30,2x512x64x100,200x4x3x2,50x64x128x32,10x128x256x64,7x33x33x33,1x256x1x64,"
    "128x128x1x1,30x100x20x50,12x1024x4x16,3x5x1000x2"
)
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
Shape = tuple[int, int, int, int]


def data(shape: Shape, batches: int) -> tuple[Any, Any]:
    steps, _, batch, features = shape
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches * batch, steps, features)).astype(np.float32)
    return x, rng.normal(size=(len(x), 1)).astype(np.float32)


def median(call: Callable[[], Any], steps: int) -> float:
    """Seconds of one of the steps that a call makes."""
    call()
    begin = time.perf_counter()
    call()
    calls = int(min(200, max(3, 0.12 / (time.perf_counter() - begin))))
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) / steps


def is_long(shape: Shape) -> bool:
    steps, units, batch, _ = shape
    return steps * units**2 * batch > 2e6


def fastbp(cell: str, shape: Shape) -> float:
    import fastbp as bp

    bp.set_num_threads(2)
    layers: dict[str, Any] = {"lstm": bp.LSTM, "gru": bp.GRU, "rnn": bp.SimpleRNN}
    model = bp.Sequential([layers[cell](shape[1]), bp.Dense(1)], seed=0)
    model.compile("adam", "mse")
    x, y = data(shape, 4)
    epochs = 1 if is_long(shape) else 25
    return median(
        lambda: model.fit(x, y, epochs=epochs, batch_size=shape[2], verbose=0), 4 * epochs
    )


def torch(cell: str, shape: Shape) -> float:
    import torch

    torch.set_num_threads(2)
    layer = getattr(torch.nn, cell.upper())(shape[3], shape[1], batch_first=True)
    head = torch.nn.Linear(shape[1], 1)
    adam = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=1e-3)
    x, y = map(torch.tensor, data(shape, 1))

    def step() -> None:
        adam.zero_grad()
        ((head(layer(x)[0][:, -1]) - y) ** 2).mean().backward()
        adam.step()

    return median(step, 1)


def jax(cell: str, shape: Shape) -> float:
    import jax
    import jax.numpy as jnp

    _, units, batch, features = shape
    x, y = map(jnp.array, data(shape, 1))
    wide, rng = GATES[cell] * units, np.random.default_rng(0)
    sizes = {"w": (features, wide), "u": (units, wide), "head": (units, 1)}
    start = {name: jnp.array(rng.normal(0, 0.1, size), jnp.float32) for name, size in sizes.items()}
    start |= {"b": jnp.zeros(wide), "d": jnp.zeros(wide)}
    sigmoid = jax.nn.sigmoid

    def loss(p: Any) -> Any:
        def walk(state: Any, a: Any) -> Any:
            h, c = state
            r = h @ p["u"]
            if cell == "rnn":
                return (jnp.tanh(a + r), c), None
            if cell == "lstm":
                i, f, g, o = jnp.split(a + r, 4, 1)
                c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
                return (sigmoid(o) * jnp.tanh(c), c), None
            (az, as_, an), (rz, rs, rn) = jnp.split(a, 3, 1), jnp.split(r + p["d"], 3, 1)
            z, n = sigmoid(az + rz), jnp.tanh(an + sigmoid(as_ + rs) * rn)
            return (z * h + (1 - z) * n, c), None

        a = jnp.swapaxes(x @ p["w"] + p["b"], 0, 1)
        (h, _), _ = jax.lax.scan(walk, (jnp.zeros((batch, units)),) * 2, a)
        return ((h @ p["head"] - y) ** 2).mean()

    def adam(state: Any, _: Any) -> Any:
        p, m, v, t = state
        g = jax.grad(loss)(p)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), p, m, v)
        return (p, m, v, t + 1), None

    steps = 1 if is_long(shape) else 32
    run = jax.jit(lambda state: jax.lax.scan(adam, state, None, length=steps)[0])
    zeros = jax.tree.map(jnp.zeros_like, start)
    held = [(start, zeros, zeros, jnp.float32(1))]

    def call() -> None:
        held[0] = jax.block_until_ready(run(held[0]))

    return median(call, steps)


CONTESTANTS: dict[str, Callable[[str, Shape], float]] = {
    "fastbp": fastbp,
    "torch": torch,
    "jax": jax,
}


def timed(name: str, cells: str, shapes: str) -> list[float]:
    """Seconds of a step, of each cell and shape, in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, "--cells", cells, "--shapes", shapes]
    found: list[float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cells", default="lstm,gru,rnn")
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--peers", default="torch")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    jobs: list[tuple[str, Shape]] = []
    for cell in given.cells.split(","):
        for text in given.shapes.split(","):
            steps, units, batch, features = map(int, text.split("x"))
            jobs.append((cell, (steps, units, batch, features)))
    if given.alone:
        print(json.dumps([CONTESTANTS[given.alone](*job) for job in jobs]))
        return
    names = ["fastbp", *given.peers.split(",")]
    times = [timed(name, given.cells, given.shapes) for name in names]
    print(
        "| cell | steps, units, batch, features |",
        " | ".join(f"{n}, us" for n in names),
        "| ahead |",
    )
    print("|---|---|" + "---:|" * (len(names) + 1))
    for (cell, shape), *each in zip(jobs, *times, strict=True):
        ours, *others = each
        figures = " | ".join(f"{1e6 * t:.1f}" for t in each)
        print(f"| {cell} | {', '.join(map(str, shape))} | {figures} | {min(others) / ours:.2f} |")


if __name__ == "__main__":
    main()
