"""PyTorch beside the rows of `fastbp bench --device cuda --peers`: the same network, data and
precision, with the fused AdamW, a step recorded as a CUDA graph, so that no launch is paid for.

Both begin with the same parameters; the loss of the first step must be fastbp's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .cuda import Run

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 1e-2}
WARM_UP = 5


class DifferentError(RuntimeError):
    """PyTorch does not compute the same."""


def seconds_per_step(run: Run, rounds: int = 5, seconds: float = 0.2) -> float:
    """The fastest round's, on one batch. Raises DifferentError for another loss."""
    goal = run.goal
    torch.backends.cuda.matmul.allow_tf32 = goal.dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = goal.dtype == "tf32"
    x = torch.tensor(run.x[: goal.batch], device="cuda")
    y = torch.tensor(run.y[: goal.batch], device="cuda")
    step = _Step(run, x, y)
    expected = run.network.evaluate(run.x[: goal.batch], run.y[: goal.batch])
    loss = expected["loss"]
    if abs(step.loss() - loss) > TOLERANCE[goal.dtype] * loss:
        raise DifferentError(f"{goal.name}: PyTorch's loss is {step.loss()}, fastbp's {loss}")
    replay = _recorded(step)
    count = 1
    while _taken(replay, count) < seconds and count < 2**20:
        count *= 2
    return min(_taken(replay, count) for _ in range(rounds)) / count


class _Step:
    def __init__(self, run: Run, x: Any, y: Any) -> None:
        self.x, self.y, self.recurrent = x, y, bool(run.goal.steps)
        self.bfloat16 = run.goal.dtype == "bfloat16"
        self.net = (_lstm if self.recurrent else _dense)(run).cuda()
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=1e-3, fused=True, capturable=True
        )

    def loss_here(self) -> Any:
        with torch.autocast("cuda", torch.bfloat16, self.bfloat16, cache_enabled=False):
            out = self.net(self.x)
        out = out[0][:, -1] if self.recurrent else out
        return torch.nn.functional.mse_loss(out.float(), self.y)

    def loss(self) -> float:
        with torch.no_grad():
            return float(self.loss_here())

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_here().backward()
        self.optimizer.step()


def _dense(run: Run) -> Any:
    layers: list[Any] = []
    values = list(run.network.parameters().values())
    for kernel, bias in zip(values[::2], values[1::2], strict=True):
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _lstm(run: Run) -> Any:
    assert run.goal.sizes is not None
    layer = torch.nn.LSTM(*run.goal.sizes, batch_first=True)
    state = run.network.to_torch_state_dict()
    own = dict(zip(layer.state_dict(), state.values(), strict=True))
    layer.load_state_dict({name: torch.as_tensor(value) for name, value in own.items()})
    return layer


def _recorded(step: _Step) -> Any:
    """Replays the step as a CUDA graph."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _taken(replay: Any, count: int) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        replay()
    torch.cuda.synchronize()
    return time.perf_counter() - begin
