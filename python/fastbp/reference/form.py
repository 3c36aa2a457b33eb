"""What arrays an engine in NumPy takes, and the errors for others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array, describe
from .losses import check_target
from .metrics import metric
from .sequences import Rows, Samples, by_rows, parts


@dataclass(frozen=True)
class Form:
    """Rows of `inputs` columns of `dtype` in and of `outputs` columns out; in, and out, perhaps a
    row at each step. `carried_width` values are the states of a sequence."""

    dtype: str
    inputs: int
    outputs: int
    takes_sequences: bool
    gives_sequences: bool
    carried_width: int

    def check_array(self, name: str, a: Array, rows: int | None, *row: int | None) -> None:
        """Raises TypeError or ValueError unless a is (rows, *row); None admits any number."""
        if not isinstance(a, np.ndarray):
            raise TypeError(f"{name}: expected a NumPy array, got a {type(a).__name__}")
        if a.dtype != self.dtype:
            raise TypeError(f"{name}: expected dtype {self.dtype}, got a {describe(a)}")
        shape = (rows, *row)
        if a.ndim != len(shape) or any(
            m not in (None, n) for m, n in zip(shape, a.shape, strict=True)
        ):
            expected = ", ".join("n" if m is None else str(m) for m in shape)
            raise ValueError(f"{name}: expected shape ({expected}), got a {describe(a)}")
        if not a.flags.c_contiguous:
            raise ValueError(f"{name}: expected a C-contiguous array; its strides are {a.strides}")

    def check_rows(self, x: Rows, states: int | None = None) -> Samples:
        array = parts(x)[0]
        steps = (None,) if self.takes_sequences else ()
        kind: str = getattr(getattr(array, "dtype", None), "kind", "no array")
        if kind in "biu" and not steps:
            x = array = np.ascontiguousarray(array, self.dtype)
        self.check_array("x", array, None, *steps, self.inputs)
        samples = Samples(x)
        samples.check_lengths()
        rows = len(samples) if states is None else states
        samples.check_states(self.dtype, (rows, self.carried_width))
        return samples

    def output_shape(self, x: Samples) -> tuple[int, ...]:
        """Of the output of one row."""
        return (x.x.shape[1], self.outputs) if self.gives_sequences else (self.outputs,)

    def check_data(
        self,
        x: Rows,
        y: Array,
        loss: str,
        batch_size: int = 1,
        metrics: Sequence[str] = (),
        weights: Array | None = None,
        states: int | None = None,
    ) -> Samples:
        """Raises TypeError or ValueError for wrong arrays; `states` is how many rows of them."""
        samples = self.check_rows(x, states)
        if len(samples) == 0:
            raise ValueError(f"x: expected at least one sample, got a {describe(samples.x)}")
        shape = (len(samples), *self.output_shape(samples))
        check_target(*by_rows(np.broadcast_to(0.0, shape), y), loss, "y")
        if y.ndim == len(shape):
            self.check_array("y", y, *shape)
        elif y.dtype != np.int64:
            raise TypeError(f"y: expected dtype int64, got a {describe(y)}")
        if weights is not None and (weights.dtype != self.dtype or weights.shape != shape[:-1]):
            raise ValueError(
                f"weights: expected {self.dtype} of shape {shape[:-1]}, got a {describe(weights)}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        for name in metrics:
            metric(name)
        return samples
