"""Data that lies on a GPU, for a model on that GPU: checked and converted there, never on the host.

An array that is contiguous and of the engine's dtype is read where it is, of any other one kernel
makes a copy on the device. One pass says whether all numbers may be what they are; where they may
not, a copy on the host finds which and how to say it, with the functions for arrays of the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, arrays, weights
from .arrays import Array
from .device_views import View, dense_strides, empty_like, require_device, stream_of, view
from .losses import Loss
from .sequences import Sequences

if TYPE_CHECKING:
    from .embedding import Embedding

# Lowest and highest number, and whether they have to be whole; None: all are, NaN too.
Accepted = tuple[float, float, bool] | None
FLOAT64, INT64 = np.dtype(np.float64), np.dtype(np.int64)


class DeviceRows:
    """Numbers in a device's memory, contiguous, as the engine reads them.

    Of rows[...] a slice is a view; other choices of rows are gathered on the device.

    Attributes: pointer, shape, dtype (float32, float64 or int64), device: its number; owner: what
    keeps the memory.
    """

    def __init__(
        self, pointer: int, shape: Sequence[int], dtype: np.dtype[Any], device: int, owner: Any
    ) -> None:
        self.pointer, self.shape, self.dtype = pointer, tuple(shape), dtype
        self.device, self.owner = device, owner

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, True),
            "version": 3,
            "stream": None,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> DeviceRows:
        if isinstance(rows, slice):
            first, end, step = rows.indices(len(self))
            if step == 1:
                size = math.prod(self.shape[1:]) * self.dtype.itemsize
                shape = max(end - first, 0), *self.shape[1:]
                place = self.pointer + first * size
                return DeviceRows(place, shape, self.dtype, self.device, self.owner)
        chosen = np.arange(len(self))[rows]
        numbers = sent(np.ascontiguousarray(chosen, np.int64), self.device)
        shape = len(chosen), *self.shape[1:]
        made = _room(shape, self.dtype, self.device)
        _intake(view("rows", self), shape, made, rows=numbers.pointer)
        _core.cuda_synchronize(0)  # the numbers' memory is free from here on
        return made

    def reshape(self, *shape: int) -> DeviceRows:
        """The same numbers in another shape of as many."""
        return DeviceRows(self.pointer, shape, self.dtype, self.device, self.owner)

    def get(self) -> Array:
        """A copy on the host."""
        return to_host("rows", self)

    def tobytes(self) -> bytes:
        """All numbers, for a checksum."""
        return self.get().tobytes()


def to_host(name: str, value: Any) -> Array:
    """A NumPy array with the values of an array on a GPU, of any numeric dtype, complete when it
    returns."""
    one = view(name, value)
    low, high = one.span()
    memory = np.empty(high - low, np.uint8)
    stream = stream_of([one])
    if memory.size:
        _core.cuda_copy_to_host(low, memory, stream)
    steps = tuple(stride * one.dtype.itemsize for stride in one.strides)
    offset = one.pointer - low if memory.size else 0
    return np.ndarray(one.shape, one.dtype, memory, offset, steps)


def sent(host: Array, device: int) -> DeviceRows:
    """A copy of a contiguous array of the host."""
    made = _room(host.shape, host.dtype, device)
    _core.cuda_copy_to_device(device, host, made.pointer)
    return made


def features(
    value: Any,
    inputs: int | None,
    dtype: np.dtype[Any],
    device: int,
    name: str,
    *,
    finite: bool,
    flatten: bool = False,
    sequences: bool = False,
    lengths: DeviceRows | None = None,
    entries: Embedding | None = None,
) -> DeviceRows:
    """As arrays.features, on the device; with lengths, what lies behind the ends is not checked.

    With entries all have to be numbers of that table. Raises as arrays.features, and ValueError for
    an array of another device.
    """
    one = view(name, value)
    if flatten and len(one.shape) > 2:
        one = _flattened(name, one)
    arrays.require_rows_shape(name, one.shape, inputs, sequences)
    largest = float(np.finfo(dtype).max)
    accepted: Accepted = (-largest, largest, False) if finite else None
    if entries is not None:
        accepted = 0.0, float(entries.input_dim - 1), True
    rows, good = _taken(name, one, dtype, device, accepted, lengths)
    if not good:
        _refuse_features(name, value, inputs, dtype, flatten, sequences, lengths, entries)
    return rows


def _flattened(name: str, one: View) -> View:
    if not one.is_contiguous:
        raise ValueError(f"{name} is not contiguous: pass a contiguous copy, or rows of two axes")
    shape = one.shape[0], math.prod(one.shape[1:])
    return one._replace(shape=shape, strides=dense_strides(shape))


def _refuse_features(
    name: str,
    value: Any,
    inputs: int | None,
    dtype: np.dtype[Any],
    flatten: bool,
    sequences: bool,
    lengths: DeviceRows | None,
    entries: Embedding | None,
) -> None:
    """Raises for the numbers that are not accepted, in the words for arrays of the host."""
    host = to_host(name, value)
    if lengths is not None:
        host = Sequences(host, lengths.get()).cleared()
    ready = arrays.features(host, inputs, dtype, name, flatten=flatten, sequences=sequences)
    if entries is not None:
        from .embedding import check_entries

        check_entries(ready, entries, name)
    raise _changed(name)


def _changed(name: str) -> RuntimeError:
    return RuntimeError(f"{name} was written to while it was checked: finish that first")


def targets(
    value: Any,
    rows: int,
    outputs: int,
    loss: Loss,
    dtype: np.dtype[Any],
    device: int,
    names: tuple[str, str],
    steps: int | None,
    lengths: DeviceRows | None = None,
) -> DeviceRows:
    """As arrays.targets, for rows on the device; y of the host is sent there."""
    if not arrays.is_on_device(value):
        return sent(arrays.targets(value, rows, outputs, loss, dtype, names, steps), device)
    name, traits = names[1], loss.traits
    one = view(name, value)
    each = (rows,) if steps is None else (rows, steps)
    if traits.class_numbers and one.shape in (each, (*each, 1)):
        kind, shape, fits = INT64, each, True
        accepted: Accepted = (0.0, float(outputs - 1), True)
    else:
        kind, shape = dtype, (*each, outputs)
        fits = one.shape == shape or (one.shape == each and outputs == 1)
        least, largest, most = *loss.targets, float(np.finfo(dtype).max)
        low = 0.0 if traits.class_numbers else max(least, -most)
        accepted = low, min(largest, most), False
    if fits:
        taken, good = _taken(name, one, kind, device, accepted, lengths)
        if good:
            return taken.reshape(*shape)
    host = to_host(name, value)
    if lengths is not None and host.shape[:2] == each:
        host = Sequences(host.reshape(*each, -1), lengths.get()).cleared().reshape(host.shape)
    arrays.targets(host, rows, outputs, loss, dtype, names, steps)
    raise _changed(name)


def sample_weights(value: Any, n: int, device: int, name: str = "sample_weight") -> DeviceRows:
    """As weights.samples: float64 (n,) on the device."""
    if not arrays.is_on_device(value):
        return sent(weights.samples(value, n, name), device)
    one = view(name, value)
    if one.shape in ((n,), (n, 1)):
        taken, good = _taken(name, one, FLOAT64, device, (0.0, arrays.MAX, False))
        if good:
            return taken.reshape(n)
    weights.samples(to_host(name, value), n, name)
    raise _changed(name)


def factors(
    sample_weight: Any,
    class_weight: weights.ClassWeight,
    target: DeviceRows,
    loss: Loss,
    dtype: np.dtype[Any],
    runs: Array | None,
    outputs: int,
) -> DeviceRows | None:
    """As weights.rows, on the device; by way of the host with class_weight or weights of steps."""
    device = target.device
    if class_weight is not None or runs is not None:
        given = sample_weight
        host = to_host("sample_weight", given) if arrays.is_on_device(given) else given
        of: Any = target if class_weight is None else target.get()
        ready = weights.rows(host, class_weight, of, loss, dtype, runs, outputs=outputs)
        return None if ready is None else sent(ready, device)
    if sample_weight is None:
        return None
    n = len(target)
    each = sample_weights(sample_weight, n, device)
    total = _core.cuda_sum(device, each.pointer, n, 0)
    if total == 0:
        weights.samples(each.get(), n)
        raise _changed("sample_weight")
    made = _room((n,), dtype, device)
    mean = 1.0 if loss.name == "half_sse" else total / n
    _intake(view("sample_weight", each), (n,), made, divisor=mean)
    _core.cuda_synchronize(0)
    return made


def room_like(
    like: Any, shape: Sequence[int], dtype: np.dtype[Any], device: int
) -> tuple[Any, Any]:
    """A new array of the kind of `like`, and its memory for the engine, free to be written."""
    made = empty_like(like, shape, dtype)
    one = view("the result", made)
    require_device("the result", one, device)
    _core.cuda_synchronize(stream_of([one]))
    return made, DeviceRows(one.pointer, shape, dtype, device, made)


def predict(model: Any, x: Any, device: int) -> Any:
    """Sequential.predict of rows (n, inputs) that lie on the model's device, on their stream."""
    one = view("X", x)
    inputs = model._inputs
    if model._flattens and len(one.shape) > 2:
        one = _flattened("X", one)
    arrays.require_rows_shape("X", one.shape, inputs, False)
    require_device("X", one, device)
    engine = model._engine or model._build(one.shape[1])
    shape = one.shape[0], model.outputs
    result = empty_like(x, shape, model._dtype)
    target = view("the result", result)
    if not one.shape[0]:
        return result
    rows, stream = _enqueued(one, model._dtype, device, stream_of([one, target]))
    out = DeviceRows(target.pointer, shape, model._dtype, device, result)
    engine.predict(rows, out, stream=stream)
    return result


def input_gradient(
    engine: Any, x: Any, y: DeviceRows, weight: DeviceRows | None, like: Any
) -> tuple[float, Any]:
    """Sequential.input_gradient of checked rows; the gradient is of the kind of `like`."""
    values: Any = x.values if isinstance(x, Sequences) else x
    shape = view("x", like).shape  # Flatten has rows of another
    result, room = room_like(like, shape, values.dtype, values.device)
    dx = DeviceRows(room.pointer, values.shape, room.dtype, room.device, room.owner)
    loss, _ = engine.input_gradient(x, y, weight, dx)
    return loss, result


def _enqueued(one: View, dtype: np.dtype[Any], device: int, stream: int) -> tuple[DeviceRows, int]:
    """Rows that are ready behind the stream's work, which is not waited for."""
    if one.dtype == dtype and one.is_contiguous:
        return DeviceRows(one.pointer, one.shape, dtype, device, one.owner), stream
    made = _room(one.shape, dtype, device)
    _intake(one, one.shape, made, stream=stream)
    return made, stream


def _taken(
    name: str,
    one: View,
    dtype: np.dtype[Any],
    device: int,
    accepted: Accepted,
    lengths: DeviceRows | None = None,
) -> tuple[DeviceRows, bool]:
    """The numbers as the engine reads them, complete, and whether all are accepted."""
    require_device(name, one, device)
    stream = stream_of([one])
    in_place = one.dtype == dtype and one.is_contiguous
    ends = 0 if lengths is None else lengths.pointer
    if in_place:
        made = DeviceRows(one.pointer, one.shape, dtype, device, one.owner)
    else:
        made = _room(one.shape, dtype, device)
    good = True
    if accepted is not None or not in_place:
        to = None if in_place else made
        good = _intake(one, one.shape, to, accepted, dtype, lengths=ends, stream=stream)
    if accepted is None:
        _core.cuda_synchronize(stream)
    return made, good


def _room(shape: Sequence[int], dtype: np.dtype[Any], device: int) -> DeviceRows:
    memory = _core.DeviceMemory(device, math.prod(shape) * dtype.itemsize)
    return DeviceRows(memory.pointer, shape, dtype, device, memory)


def _intake(
    one: View,
    shape: Sequence[int],
    to: DeviceRows | None,
    accepted: Accepted = None,
    dtype: np.dtype[Any] | None = None,
    *,
    rows: int = 0,
    lengths: int = 0,
    divisor: float = 1.0,
    stream: int = 0,
) -> bool:
    """Whether what is read is accepted; what is written is complete behind the stream's work."""
    kind = (dtype if to is None else to.dtype) or one.dtype
    device = _core.cuda_device_of(one.pointer) if to is None else to.device
    if 0 in shape:
        return True
    return _core.cuda_intake(
        device, one.dtype.str[1:], kind.str[1:], list(shape), list(one.strides), one.pointer, rows,
        lengths, divisor, 0 if to is None else to.pointer, accepted, stream,
    )  # fmt: skip
