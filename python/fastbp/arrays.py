"""Every check of an array that a user passes: kind, dtype, shape, layout, values.

The engine and the kernels assume what is established here. Messages say what came, what was
expected and what to do. Inputs are never written to; an array that is right already is passed on
without a copy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from .errors import describe
from .losses import Loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:  # numpy.typing takes longer to import than this whole module
    Array = np.ndarray

PROCESSOR_DTYPES = ("float32", "float64", "bfloat16")  # of models on a processor
ROUNDED = ("bfloat16", "float16", "tf32")  # float32, but for what products make of it
DTYPES = (*PROCESSOR_DTYPES, "float16", "tf32")  # of models
INT64 = np.dtype(np.int64)
DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
MAX = float(np.finfo(np.float64).max)


def dtype_name(dtype: object) -> str:
    """One of DTYPES, from the name or NumPy's object. Raises ValueError for anything else."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    if name not in DTYPES:
        raise ValueError(
            "dtype must be 'float32', 'float64', 'bfloat16', 'float16' or 'tf32'; got "
            f"{describe(dtype)}"
        )
    return name


def stored(dtype: str) -> np.dtype[Any]:
    """What parameters and data of a model of that dtype are."""
    return np.dtype(np.float32 if dtype in ROUNDED else dtype)


def is_ready(value: object, dtype: np.dtype[Any]) -> bool:
    """Whether the engine can read `value` as it is: that dtype, aligned, C-contiguous."""
    if type(value) is not np.ndarray or value.dtype != dtype:
        return False
    flags = value.flags
    return flags.c_contiguous and flags.aligned


def as_numbers(name: str, value: Any) -> Array:
    """`value` as an array of bools, integers or floats. Raises TypeError, ValueError if ragged."""
    if type(value) is not np.ndarray:
        _refuse_containers(name, value)
        value = _in_numpy(name, _handed_over(name, _frame_values(name, value)))
    if value.dtype.kind == "V" and _is_small_float(value.dtype):  # of ml_dtypes, as JAX gives
        value = value.astype(np.float32)
    if value.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must hold real numbers; got dtype {value.dtype}{_kind_hint(value)}"
        )
    array: Array = value
    return array


def as_classes(name: str, value: Any) -> Array:
    """As as_numbers, but text is taken too: an array of dtype str, or of objects that are str.

    Raises TypeError for anything else, naming the first value that is no text among others.
    """
    array = _column_of_text(value)
    if type(array) is not np.ndarray:
        _refuse_containers(name, array)
        array = _in_numpy(name, _handed_over(name, _frame_values(name, array)))
    if array.dtype.kind not in "OUT":
        return as_numbers(name, array)
    texts: Array = array
    if array.dtype.kind == "U":
        return texts
    texts = array.astype(object)
    others = [item for item in texts.flat if not isinstance(item, str)]
    if len(others) == texts.size:
        return as_numbers(name, value)
    if others:
        raise TypeError(
            f"{name} must hold text alone, or numbers alone; among text it has "
            f"{describe(others[0])}"
        )
    return texts


def _column_of_text(value: Any) -> Any:
    """The only column of a frame, if it is no numbers; anything else as it is."""
    columns = getattr(value, "columns", None)
    if columns is None or len(columns) != 1 or not hasattr(value, "to_numpy"):
        return value
    found = value.to_numpy()
    return found if found.dtype.kind in "OUT" else value


def is_on_device(value: Any) -> bool:
    """Whether `value` is an array of GPU memory, of CuPy, PyTorch or another library."""
    kind = type(value)
    if kind is np.ndarray:
        return False
    if not hasattr(kind, "__cuda_array_interface__"):
        return hasattr(kind, "__dlpack_device__") and value.__dlpack_device__()[0] in DLPACK_CUDA
    try:
        return hasattr(value, "__cuda_array_interface__")  # PyTorch has it for tensors on a GPU
    except RuntimeError:  # for tensors that require gradients it raises
        return True


def at_hand(value: Any) -> Any:
    """Checked data of the engine's as an array of the host, copied where it lies on a device."""
    return value if type(value) is np.ndarray or not is_on_device(value) else value.get()


def _handed_over(name: str, value: Any) -> Any:
    """What an array holds that other libraries get by DLPack alone; anything else as it is."""
    kind = type(value)
    if not hasattr(kind, "__dlpack__") or hasattr(kind, "__array__"):
        return value
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} does not hand over its numbers by DLPack: {error}") from error


def _in_numpy(name: str, value: Any) -> Array:
    """A tensor on the host, lists and the like as an array.

    Raises ValueError if ragged, TypeError for tensors that are no plain numbers, and for those that
    expect gradients back: nothing would come.
    """
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name} is a {type(value).__name__} that requires gradients, and none flow back out "
            "of fastbp: pass its .detach()"
        )
    if hasattr(value, "detach") and _is_small_float(value.dtype):
        value = value.float()  # PyTorch gives NumPy no array of them
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} is not a regular array: its rows differ in length; of sequences that do, "
            f"give fastbp.Sequences({name})"
        ) from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} is a {type(value).__name__} that gives NumPy no array: {error}"
        ) from error


def _is_small_float(dtype: object) -> bool:
    """Whether a dtype is bfloat16 or of 8 bits: NumPy has none of these, float32 holds them all."""
    return str(dtype).rpartition(".")[2].startswith(("bfloat16", "float8"))


def _frame_values(name: str, value: Any) -> Any:
    """The values of a pandas or polars frame; anything else as it is.

    Raises TypeError that names the first column without numbers. A missing value becomes NaN.
    """
    columns = getattr(value, "columns", None)
    if columns is None or not hasattr(value, "to_numpy"):
        return value
    # pandas may have a name twice, and finds both by it; polars has no items.
    pairs = value.items() if hasattr(value, "items") else ((name, value[name]) for name in columns)
    series = [column.to_numpy() for _, column in pairs]
    for column, values in zip(columns, series, strict=True):
        if values.dtype.kind not in "biuf" and not _gaps_only(values):
            raise TypeError(
                f"{name} has no numbers in column {column!r}; got dtype {values.dtype}"
                f"{_kind_hint(values)}"
            )
    if not series:
        return np.empty((len(value), 0))
    if any(values.dtype.kind == "O" for values in series):
        series = [_with_nan(values) for values in series]
    return np.column_stack(series)


def _gaps_only(values: Array) -> bool:
    """Whether an array of objects holds numbers and missing values alone."""
    return values.dtype.kind == "O" and all(
        isinstance(item, (bool, int, float, np.number)) or _is_missing(item) for item in values
    )


def _is_missing(item: object) -> bool:
    return item is None or type(item).__name__ == "NAType"


def _with_nan(values: Array) -> Array:
    if values.dtype.kind != "O":
        return values
    return np.array([np.nan if _is_missing(item) else item for item in values], np.float64)


def _refuse_containers(name: str, value: Any) -> None:
    if value is None:
        raise TypeError(f"{name} must hold real numbers; got None: it was not given")
    if hasattr(value, "collect"):
        kind = type(value).__name__
        raise TypeError(f"{name} is a {kind}, not computed yet: pass {name}.collect()")
    if is_on_device(value):
        raise TypeError(
            f"{name} lies on a GPU ({type(value).__name__}), and this function takes NumPy arrays: "
            f"copy it, for example with {name}.get() or {name}.cpu()"
        )
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse {type(value).__name__}: pass {name}.toarray()")
    if hasattr(value, "filled") and hasattr(value, "mask"):
        raise TypeError(
            f"{name} is a masked array, and masks are not supported: pass {name}.filled(value) "
            "or leave the masked rows out"
        )


def _kind_hint(value: Array) -> str:
    if value.dtype.kind == "O":
        for item in value.flat:
            if isinstance(item, np.ndarray):
                return " that holds arrays; of sequences give fastbp.Sequences(list(X))"
            if not isinstance(item, (bool, int, float, np.number)):
                return f" with {describe(item)} in it; fill or drop gaps, then use .astype(float)"
        return "; convert it with .astype(float)"
    if value.dtype.kind in "US":
        return "; turn names into numbers, for example with numpy.unique(x, return_inverse=True)"
    if value.dtype.kind == "c":
        return "; take .real, or pass real and imaginary parts as columns"
    return ""


def features(
    value: Any,
    inputs: int | None,
    dtype: np.dtype[Any],
    name: str = "X",
    *,
    finite: bool = True,
    flatten: bool = False,
    sequences: bool = False,
) -> Array:
    """Rows for a network: (n, inputs), or sequences (n, steps, inputs), C-contiguous, of `dtype`.

    Any width from 1 passes where `inputs` is None. With `flatten` the rows may have any shape.

    Raises TypeError for wrong kinds; ValueError for another shape and, if `finite`, for NaN and
    infinity, naming the row and the column.
    """
    array: Array = value
    axes = 3 if sequences else 2
    if is_ready(value, dtype) and array.ndim == axes and array.shape[-1] == inputs:
        if not (finite and _core.all_finite(array) >= 0):
            return array  # on the way of every step: no more than this
    else:
        array = as_numbers(name, value)
    if flatten and array.ndim > 2:
        array = value = array.reshape(len(array), math.prod(array.shape[1:]))
    require_rows_shape(name, array.shape, inputs, sequences)
    return _converted(name, value, array, dtype, finite)


def require_rows_shape(
    name: str, shape: tuple[int, ...], inputs: int | None, sequences: bool
) -> None:
    """Raises ValueError unless it is that of rows for a network; any width passes for None."""
    if len(shape) != (3 if sequences else 2):
        raise ValueError(_rows_message(name, shape, inputs, sequences))
    if sequences and shape[1] == 0:
        raise ValueError(f"{name} has sequences without a step; got shape {shape}")
    if inputs is None and shape[-1] == 0:
        raise ValueError(f"{name} has no columns; got shape {shape}")
    if inputs is not None and shape[-1] != inputs:
        raise ValueError(
            f"{name} has {shape[-1]} columns, but the network takes {inputs}; got shape {shape}"
        )


def _rows_message(name: str, shape: tuple[int, ...], inputs: int | None, sequences: bool) -> str:
    width = "columns" if inputs is None else inputs
    if sequences:
        message = f"{name} must have shape (sequences, steps, {width}); got shape {shape}"
        if len(shape) == 2:
            message += f". For one value per step use {name}[:, :, None]; for one step, [:, None]"
        return message
    message = f"{name} must have shape (rows, {width}); got shape {shape}"
    if len(shape) == 1 and inputs == 1:
        return f"{message}. For one number per row use {name}[:, None]"
    if len(shape) == 1 and inputs in (None, shape[0]):
        return f"{message}. For one row use {name}[None, :]"
    if len(shape) > 2:
        return (
            f"{message}. Flatten each row with {name}.reshape(len({name}), -1), or begin the "
            "network with Flatten()"
        )
    return message


def _converted(name: str, value: Any, array: Array, dtype: np.dtype[Any], finite: bool) -> Array:
    """`array`, which came as `value`, in the engine's dtype and layout; free of NaN if `finite`."""
    ready = array
    if not is_ready(array, dtype):
        with np.errstate(over="ignore"):
            ready = np.require(array, dtype, ["C", "A"])
    if finite:
        position = _core.all_finite(ready)
        if position >= 0:
            raise ValueError(_not_finite(name, value, array, ready, position))
    return ready


def first_non_finite(array: Array) -> int:
    """The place of the first NaN or infinity in flat order, -1 if there is none."""
    return int(_core.all_finite(array))


def _not_finite(name: str, value: Any, array: Array, ready: Array, position: int) -> str:
    index = np.unravel_index(position, ready.shape)
    place = f"row {index[0]}"
    if len(index) > 2:
        place += f", step {index[1]}, column {index[2]}"
    elif len(index) > 1:
        place += f", column {index[1]}"
        labels = getattr(value, "columns", None)
        if labels is not None:
            place += f" ({labels[int(index[1])]!r})"
    found = array[index]
    if np.isfinite(found):
        return (
            f"{name} has {found.item()!r} at {place}, which {ready.dtype} cannot hold: scale the "
            "data, or compile with dtype='float64'"
        )
    advice = "fill or drop such rows first"
    if not name[0].isdigit() and " " not in name:  # as what is no variable is called
        axes = {1: "", 2: ".all(axis=1)"}.get(ready.ndim, ".all(axis=(1, 2))")
        advice += f", for example with numpy.isfinite({name}){axes}"
    return f"{name} has {'NaN' if np.isnan(found) else 'infinity'} at {place}: {advice}"


def targets(
    value: Any,
    rows: int,
    outputs: int,
    loss: Loss,
    dtype: np.dtype[Any],
    names: tuple[str, str] = ("X", "y"),
    steps: int | None = None,
) -> Array:
    """What `rows` rows of a network with `outputs` outputs are trained towards.

    With `steps`, of one that puts out so many steps of each row: (rows, steps, outputs), or class
    numbers (rows, steps).

    Returns (rows, outputs) of `dtype`, or int64 (rows,) where the loss takes class numbers and got
    them. A column may come as (rows,), class numbers also as (rows, 1) or as floats without a
    fraction.

    Raises TypeError for wrong kinds; ValueError for another shape, another number of rows, NaN,
    class numbers outside 0 .. outputs - 1, and values outside [0, 1] where the loss needs
    probabilities, naming where or which.
    """
    name, traits = names[1], loss.traits
    array = value if is_ready(value, dtype) else as_numbers(name, value)
    if array.ndim == 0 or array.shape[0] != rows:
        raise ValueError(
            f"{names[0]} has {rows} rows, but {name} has {array.shape[0] if array.ndim else 'no'}; "
            f"got shape {array.shape}"
        )
    each = (rows,) if steps is None else (rows, steps)
    if traits.class_numbers and array.size == math.prod(each) and array.ndim <= len(each) + 1:
        return class_numbers(array, outputs, name).reshape(each)
    if array.shape == each and outputs == 1:
        array = array[..., None]
    elif array.shape != (*each, outputs):
        raise ValueError(_targets_message(name, array, each, outputs, loss))
    ready = _converted(name, value, array, dtype, finite=True)
    if traits.class_numbers and ready.min() < 0:
        raise ValueError(
            f"{name} has rows of class weights for loss {loss.name!r}, which must not be negative; "
            f"the smallest is {ready.min():g}"
        )
    check_range(name, ready, loss)
    return ready


def _targets_message(
    name: str, array: Array, each: tuple[int, ...], outputs: int, loss: Loss
) -> str:
    message = f"{name} must have shape {(*each, outputs)}"
    if loss.traits.class_numbers:
        message += f" (one-hot or soft rows) or {each} (class numbers)"
    message += f" for a network with {outputs} output{'s' * (outputs > 1)}; got shape {array.shape}"
    if array.ndim == 1 and array.dtype.kind in "biu" and not loss.traits.class_numbers:
        message += ". For class numbers use loss='softmax_cross_entropy'"
    return message


def class_numbers(array: Array, classes: int, name: str = "y") -> Array:
    """Class numbers (n,) or (n, 1), of steps (n, steps) too, as int64 (all of them,).

    Raises ValueError for a number outside 0 .. classes - 1 or with a fraction, naming its position
    and value.
    """
    flat = array.reshape(-1)
    # One pass on the way of every step: as unsigned numbers, negative ones are large.
    if is_ready(flat, INT64) and np.maximum.reduce(flat.view(np.uint64), initial=0) < classes:
        return flat
    if flat.dtype.kind == "f":
        fraction = ~(flat == np.floor(flat))  # NaN too
        if fraction.any():
            _refuse_label(name, array, fraction, classes)
    outside = (
        (flat < 0) | (flat >= classes) if flat.dtype.kind != "b" else flat.astype(int) >= classes
    )
    if outside.any():
        _refuse_label(name, array, outside, classes)
    labels: Array = np.require(flat, np.int64, ["C", "A"])
    return labels


def _refuse_label(name: str, array: Array, wrong: Array, classes: int) -> None:
    """`wrong` is flat."""
    at = np.unravel_index(int(np.argmax(wrong)), array.shape)
    place = ", ".join(map(str, at[:-1] if array.ndim > 1 and array.shape[-1] == 1 else at))
    raise ValueError(
        f"{name}[{place}] is {array[at].item()!r}; class numbers are the integers 0 to "
        f"{classes - 1}, for {classes} outputs"
    )


def check_range(name: str, array: Array, loss: Loss) -> None:
    """Raises ValueError, naming the range found, for targets beyond the loss's; NaN passes."""
    least, largest = loss.targets
    if array.size == 0 or (least < -MAX / 2 and largest > MAX / 2):
        return
    low, high = float(np.fmin.reduce(array, axis=None)), float(np.fmax.reduce(array, axis=None))
    if low < least or high > largest:
        wanted = f"lie in [{least:g}, {largest:g}]" if largest < MAX else "not be negative"
        raise ValueError(
            f"{name} must {wanted} for loss {loss.name!r}; it ranges from {low:g} to {high:g}. "
            "For other quantities use loss='mse'"
        )


def parameter(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new value for a parameter: exactly `shape`, finite, cast to `dtype`; else an error."""
    array = as_numbers(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {shape}; got shape {array.shape}")
    return _converted(name, value, array, dtype, finite=True)
