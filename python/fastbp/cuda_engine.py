"""The engine of device="cuda": a network of the CUDA library with the methods of _core.Engine.

Parameters, gradients and optimizer state live on the device. `parameters` and its like give a copy
on the host that behaves as if it were theirs: while anybody holds it, or a view of it, it is
written to the device before each call and read back after it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from . import _core, cublaslt
from .arrays import ROUNDED, Array, stored
from .registry import OPTIMIZERS
from .sequences import Sequences
from .turns import OneAtATime

Result = TypeVar("Result")

# Numbers of the flat arrays (csrc/kernels/cuda/fastbp_cuda_network.h).
PARAMETERS, GRADIENTS, FIRST_SLOT, ACCUMULATED, AVERAGE, STATE, LOSS_SCALE = 0, 1, 2, 4, 5, 6, 7


class CudaEngine(OneAtATime):
    """A chain of layers on a CUDA device; arguments as fastbp._core.Engine's.

    dtype: "float32", "float64", or "bfloat16", "float16" and "tf32", which are float32 but for the
    products: their operands are rounded, on tensor cores; of float16 the loss is scaled. device:
    the device's number. Raises MemoryError where the device's memory is too small, with what it was
    needed for; RuntimeError where the device fails.
    """

    def __init__(
        self,
        inputs: int,
        layers: Sequence[tuple[Any, ...]],
        dtype: str,
        seed: int = 0,
        sequences: bool = False,
        *,
        device: int = 0,
    ) -> None:
        if dtype in ROUNDED:
            cublaslt.prepare()
        super().__init__()
        self._network = _core.CudaNetwork(inputs, list(layers), dtype, seed, device, sequences)
        self.inputs = inputs
        self._dtype, self._scaled = stored(dtype), dtype == "float16"
        self._slots = 0
        self._rules: list[int] = []  # arrays of the optimizer's state that rules want
        self._copies: dict[int, Array] = {}  # on the host, by number

    @property
    def parameter_shapes(self) -> list[tuple[int, int, int, bool]]:
        """(offset, rows, cols, has_bias) of each block of parameters."""
        return self._network.parameter_shapes

    @property
    def carried_width(self) -> int:
        """Values of the states of a sequence."""
        return self._network.carried_width

    @property
    def parameters(self) -> Array:
        """All parameters, flat, live and writable."""
        return self._copy(PARAMETERS)

    @property
    def gradients_(self) -> Array:
        """What gradients() filled, laid out as parameters."""
        return self._copy(GRADIENTS)

    @property
    def optimizer_state(self) -> list[Array]:
        """The optimizer's slots, then what rules keep; laid out as parameters, live, writable."""
        slots = range(FIRST_SLOT, FIRST_SLOT + self._slots)
        return [self._copy(number) for number in (*slots, *self._rules)]

    @property
    def loss_scale(self) -> Array | None:
        """Of float16 (fastbp.reference.float16.new_scale), live, writable; otherwise None."""
        return self._copy(LOSS_SCALE) if self._scaled else None

    @property
    def state(self) -> Array:
        """What training changes and no optimizer does, flat, live and writable."""
        return self._copy(STATE)

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """(offset, rows, cols) of each block of state."""
        return self._network.state_shapes

    def set_trainable(self, layers: Sequence[bool]) -> None:
        """Whether the parameters and the state of each layer are trained."""
        self._call(lambda: self._network.set_trainable(list(layers)))

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return self._network.steps

    @steps.setter
    def steps(self, count: int) -> None:
        self._network.steps = count

    @property
    def replays(self) -> int:
        """How many of the steps so far were replayed from a CUDA graph."""
        return self._network.replays

    @property
    def persistent_steps(self) -> int:
        """How many of the steps so far the kernel took that trains narrow networks whole."""
        return self._network.persistent_steps

    def set_persistent(self, allowed: bool) -> None:
        """Whether narrow networks are trained by that kernel wherever they fit it, and recurrent
        layers take all steps of their sequences in one; else stage by stage and step by step, by
        graphs. Until this is called, whichever is estimated to be quicker."""
        self._network.set_persistent(allowed)

    def start_clock(self) -> None:
        """Times the parts of steps from now on, by events on the device; waits for each step."""
        self._network.start_clock()

    def stop_clock(self) -> dict[str, Array]:
        """The seconds of each part since start_clock: by layer, then those of all layers."""
        return self._network.stop_clock()

    def set_stream(self, stream: int) -> None:
        """Works behind what is enqueued on this cudaStream_t; 0: on the engine's own stream."""
        self._network.set_stream(stream)

    def hold(self, x: Array, y: Array, weights: Array | None = None) -> None:
        """Copies of these arrays stay on the device and serve all calls that get them, until
        release(): of at most two sets of rows. They must not be changed meanwhile. What is on the
        device already (DeviceRows, as all methods take them) is read where it is.
        """
        rows: Any = x
        if isinstance(rows, Sequences):  # without the states, which change
            rows = rows.like(rows.values, there=rows.lengths_there)
        self._call(lambda: self._network.hold(rows, y, weights))

    def release(self) -> None:
        """Gives the memory of what hold() has copied back to the device."""
        self._call(self._network.release)

    def compile(
        self, loss: Any, loss_param: float, optimizer: str, hyper: dict[str, float]
    ) -> None:
        """Chooses loss, by name or as a function's entry, and optimizer; the optimizer's state and
        the step count start anew."""
        network = self._network
        self._call(lambda: network.compile(loss, loss_param, optimizer, hyper))
        self._slots = OPTIMIZERS[optimizer]["slots"]
        self._rules = []

    def set_hyper(self, hyper: dict[str, float]) -> None:
        """Changes the hyper-parameters; state and step count stay."""
        self._network.set_hyper(hyper)

    def set_rules(self, rules: dict[str, Any]) -> None:
        """What else happens; the keys are those of fastbp.reference.rules.Rules."""
        self._call(lambda: self._network.set_rules(rules))
        self._rules = [
            array
            for array, wanted in (
                (ACCUMULATED, rules.get("accumulation", 1) > 1),
                (AVERAGE, "average_momentum" in rules),
            )
            if wanted
        ]

    def train(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        epochs: int,
        first_epoch: int,
        shuffle: bool,
        seed: int,
        metrics: list[str],
        position: Array | None = None,
        record: Array | None = None,
        steps: int = -1,
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> tuple[Array, Array]:
        """Losses (epochs,) and metrics (epochs, M); arguments as fastbp.reference.Engine.train."""
        schedule = (batch_size, epochs, first_epoch, shuffle, seed, metrics)
        where = (position, record, steps, outputs)
        return self._call(lambda: self._network.train(x, y, *schedule, *where, weights))

    def train_batch(
        self,
        x: Array,
        y: Array,
        metrics: list[str],
        sums: Array,
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """One step as part of an epoch: adds to sums (1 + M,) what train() keeps of a batch."""
        self._call(lambda: self._network.train_batch(x, y, metrics, sums, outputs, weights))

    def step(self, x: Array, y: Array, weights: Array | None = None) -> float:
        """One step on one batch; its loss before the update."""
        return self._call(lambda: self._network.step(x, y, weights))

    def gradients(self, x: Array, y: Array, weights: Array | None = None) -> float:
        """Fills gradients_ for one batch; its loss."""
        return self._call(lambda: self._network.gradients(x, y, weights))

    def flat_gradient(
        self, x: Array, y: Array, weights: Array | None = None
    ) -> tuple[float, Array]:
        """The loss of one batch and its gradient in a new array, laid out as parameters."""

        def work() -> tuple[float, Array]:
            loss = self._network.gradients(x, y, weights)
            made = np.empty(self._network.parameter_count, self._dtype)
            self._network.read(GRADIENTS, made)
            return loss, made

        return self._call(work)

    def input_gradient(
        self, x: Array, y: Array, weights: Array | None = None, dx: Any = None
    ) -> tuple[float, Array]:
        """The loss of one batch and its gradient with respect to x; of DeviceRows in dx."""
        return self._call(lambda: self._network.input_gradient(x, y, weights, dx))

    def evaluate(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        metrics: list[str],
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> tuple[float, list[float]]:
        """Loss and metrics over all rows, by batches; fills outputs (n, O) too if it is given."""
        rows = (x, y, batch_size, metrics, outputs, weights)
        return self._call(lambda: self._network.evaluate(*rows))

    def predict(self, x: Array, out: Array, training: bool = False, stream: int = 0) -> None:
        """Writes the output for the rows of x to out; `training`: as the next step sees them.

        Behind what is enqueued on that cudaStream_t, if it is not 0, and complete when it returns.
        """
        self._call(lambda: self._network.predict(x, out, training, stream))

    def _copy(self, number: int) -> Array:
        with self._turn:
            copy = self._copies.get(number)
            if copy is None:
                network = self._network
                count = {STATE: network.state_count, LOSS_SCALE: 3}.get(
                    number, network.parameter_count
                )
                copy = np.empty(count, self._dtype)
                self._network.read(number, copy)
                self._copies[number] = copy
            return copy

    def _call(self, work: Callable[[], Result]) -> Result:
        """The result of work, between writing the copies and reading back those that are held."""
        with self._turn:
            for number in list(self._copies):
                self._network.write(number, self._copies[number])
                # What nobody else holds has now been written for the last time: 2 references are
                # the dictionary's and getrefcount's own. (A variable of this function would be a
                # third.)
                if sys.getrefcount(self._copies[number]) == 2:
                    del self._copies[number]
            try:
                return work()
            finally:
                for number, copy in self._copies.items():
                    self._network.read(number, copy)
