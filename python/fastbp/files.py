"""Model files: the safetensors layout, a checksum of every byte, nothing that could be executed.

    8 bytes    length of the header, little-endian
    header     {"__metadata__": {"sha256": "<64 digits>", "fastbp": "<description>", ...},
               "<tensor>": {...}, ...}, and spaces up to a multiple of 8 bytes
    data       the tensors, little-endian, without gaps, in the header's order

"sha256" comes first, so that its digits stand at a fixed place; it is the digest of the whole file
with zeros in their stead, and is checked before anything is parsed. "fastbp" is JSON: format,
dtype, inputs, layers, seed, epochs, frozen, and under "training" loss, optimizer, metrics and
steps. Tensors are the parameters ("0.kernel"), the state ("1.moving_mean") and the optimizer's
slots ("optimizer.0.0.kernel"), and with dtype "float16" "optimizer.loss_scale". Where a fit has not
come to its end, "run" is its state (packing.py), with the arrays "run.0" and so on. Classes are
looked up by name in fixed tables. Other metadata is the user's text.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from . import (
    checks,
    devices,
    layers,
    loss_scale,
    losses,
    metrics,
    network,
    optimizers,
    packing,
    resume,
    spec,
)
from .arrays import Array, dtype_name, stored
from .durable import Background, digest, write_durably
from .errors import ModelFileError, describe
from .network import Compiled
from .unpacking import from_config

if TYPE_CHECKING:
    from .model import Sequential
    from .transferable import Transferable

Result = TypeVar("Result")

FORMAT = 1
MAX_HEADER = 16 * 2**20  # bytes; about 100,000 tensors
PREFIX = b'{"__metadata__":{"sha256":"'
DIGITS = 64
DIGEST_AT = 8 + len(PREFIX)
SCALE = "optimizer.loss_scale"  # the tensor
RESERVED = ("sha256", "fastbp")
TENSOR_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int8": "I8"}


class Description(NamedTuple):
    """A model without its tensors."""

    layers: Sequence[layers.Layer]
    inputs: int
    dtype: str
    seed: int
    epochs: int
    compiled: Compiled | None
    steps: int
    frozen: network.Frozen
    metadata: dict[str, str]
    run: Any = None  # the packed state of an unfinished run
    run_tensors: Sequence[tuple[str, tuple[int, ...]]] = ()  # dtype and shape of its arrays

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name, in the order of the file."""
        parameters = network.parameter_shapes(self.layers, self.inputs)
        shapes = {**parameters, **network.state_shapes(self.layers, self.inputs)}
        if self.compiled is not None:
            for slot in range(optimizers.slots(self.compiled.optimizer)):
                shapes.update({f"optimizer.{slot}.{name}": parameters[name] for name in parameters})
            if self.dtype == "float16":
                shapes[SCALE] = (3,)
        return shapes


def save(model: Transferable, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Sequential.save; see there."""
    copied = model._turns.trained_elsewhere  # else a step waits until this is written

    def work() -> list[bytes]:
        chunks = _chunks(model, metadata)
        if copied:
            return [bytes(chunk) for chunk in chunks]
        write_durably(path, chunks, DIGEST_AT)
        return []

    kept = between_steps(model, work)
    if copied:
        write_durably(path, kept, DIGEST_AT)


def save_in_background(
    model: Transferable, path: str | os.PathLike[str], writer: Background
) -> None:
    """As `save`, of the model as it is now, by a thread; returns when the model is copied.

    Raises what went wrong with the writer's file before, for which it waits.
    """
    writer.finish()
    between_steps(model, lambda: writer.write(path, _chunks(model, model.metadata), DIGEST_AT))


def to_bytes(model: Transferable) -> bytes:
    """The content of the file that `model.save` would write."""

    def work() -> bytes:
        chunks = _chunks(model, model.metadata)
        return _with_digest(chunks[0], digest(chunks)) + b"".join(chunks[1:])

    return between_steps(model, work)


def between_steps(model: Transferable, work: Callable[[], Result]) -> Result:
    """work(), which reads the model, while no other thread trains it, by fit or by steps."""
    engine = model._engine
    with model._turns.between_steps():
        result: Result = work() if engine is None else engine.still(work)
    return result


def _chunks(model: Transferable, metadata: Mapping[str, str]) -> list[Any]:
    """The parts of a model file, as buffers in order, with zeros for the digest."""
    engine = model._require_built()
    tensors = tensors_of(model)
    described = {
        "format": FORMAT,
        "dtype": model.dtype,
        "inputs": model.inputs,
        "seed": model.seed,
        "epochs": model.epochs_trained,
        "layers": [spec.pack(layer) for layer in model.layers],
        "frozen": sorted(model.frozen),
        "training": None,
    }
    if model._compiled is not None:
        loss, optimizer, names = model._compiled
        described["training"] = {
            "loss": spec.pack(loss),
            "optimizer": optimizer.packed(),
            "metrics": names,
            "steps": engine.steps,
        }
        state = resume.capture(model)
        if state is not None:
            kept: list[Array] = []
            described["run"] = packing.pack(state, kept, "run")
            tensors.update({f"run.{number}": array for number, array in enumerate(kept)})
            described["run_tensors"] = [[a.dtype.name, list(a.shape)] for a in kept]
    arrays = [
        tensor.astype(tensor.dtype.newbyteorder("<"), copy=False) for tensor in tensors.values()
    ]
    head = header(described, tensors, _checked_metadata(metadata))
    return [head, *(array.reshape(-1).view(np.uint8).data for array in arrays if array.size)]


def _with_digest(head: bytes, digits: bytes) -> bytes:
    return head[:DIGEST_AT] + digits + head[DIGEST_AT + DIGITS :]


def tensors_of(model: Transferable) -> dict[str, Array]:
    """Views of everything that is saved, by name."""
    engine = model._require_built()
    tensors = network.views(model.layers, engine, engine.parameters)
    tensors.update(network.state(model.layers, engine))
    if model._compiled is not None:
        for slot, flat in enumerate(engine.optimizer_state):
            named = network.views(model.layers, engine, flat)
            tensors.update({f"optimizer.{slot}.{name}": view for name, view in named.items()})
        scale = loss_scale.array_of(engine)
        if scale is not None:
            tensors[SCALE] = scale
    return tensors


def _checked_metadata(metadata: Mapping[Any, Any]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(
                f"metadata must be text by name; got {describe(key)}: {describe(value)}. Use "
                "json.dumps for more"
            )
        if key in RESERVED:
            raise ValueError(f"metadata name {key!r} is taken by the file format: choose another")
    return dict(metadata)


def header(
    described: dict[str, Any], tensors: Mapping[str, Array], metadata: dict[str, str]
) -> bytes:
    """Length and header, with zeros for the digest."""
    table: dict[str, Any] = {
        "__metadata__": {
            "sha256": "0" * DIGITS,
            "fastbp": json.dumps(described, separators=(",", ":"), allow_nan=False),
            **metadata,
        }
    }
    offset = 0
    for name, array in tensors.items():
        table[name] = {
            "dtype": TENSOR_DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER:
        raise ValueError(
            f"the description of the model and its metadata takes {len(header)} bytes; the "
            f"limit is {MAX_HEADER}"
        )
    return len(header).to_bytes(8, "little") + header


def load(path: str | os.PathLike[str], device: str) -> Sequential:
    """fastbp.load; see there."""
    name = devices.resolve(device)
    return _model(read(path), repr(os.fspath(path)), name)


def from_bytes(data: bytes, device: str) -> Sequential:
    """The model that `to_bytes` described; checked and refused as a file would be."""
    name, source = devices.resolve(device), "the model's description"
    _check_start(data[:DIGEST_AT], len(data), source)
    _check_digest(data, source)
    return _model(data, source, name)


def _model(data: bytes, source: str, name: str) -> Sequential:
    """The model in `data`, whose checksum is right; `source` is its name in messages."""
    from .model import Sequential

    try:
        header_end = 8 + int.from_bytes(data[:8], "little")
        table = parse(data[8:header_end])
        described = _describe(table.pop("__metadata__"))
        places = _places(table, described, len(data) - header_end)
        model = Sequential(described.layers, described.seed)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{source} is not a model file: {reason}") from error

    devices.require_dtype(name, described.dtype)
    model.metadata = described.metadata
    model._frozen = described.frozen
    model._adopt(described.compiled, name, described.dtype)
    engine = model._build(described.inputs, draw=False)
    kind = stored(described.dtype).newbyteorder("<")
    for tensor, view in tensors_of(model).items():
        view[...] = np.frombuffer(
            data, kind, count=view.size, offset=header_end + places[tensor]
        ).reshape(view.shape)
        if tensor == SCALE and not loss_scale.is_valid(view):
            raise ModelFileError(f"{source} is not a model file: its loss has the scale {view}")
    if described.compiled is not None:
        engine.steps = described.steps
    model._epochs = described.epochs
    if described.run is not None:
        model._run = _saved_run(data, header_end, places, described, source)
    return model


def _saved_run(
    data: bytes, header_end: int, places: Mapping[str, int], described: Description, source: str
) -> resume.Saved:
    """The state of the run in the file."""
    kept = []
    for number, (kind, shape) in enumerate(described.run_tensors):
        dtype, offset = np.dtype(kind).newbyteorder("<"), header_end + places[f"run.{number}"]
        flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=offset)
        kept.append(flat.astype(kind).reshape(shape))
    try:
        state = packing.unpack(described.run, kept)
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{source} is not a model file: {error}") from error
    return resume.Saved(resume.checked(state, source), described.steps)


def read(path: str | os.PathLike[str]) -> bytes:
    """The whole file, once its length, its first bytes and its checksum are found right."""
    source = repr(os.fspath(path))
    with Path(path).open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{source} is not a regular file")
        _check_start(file.read(DIGEST_AT), status.st_size, source)
        file.seek(0)
        data = file.read(status.st_size)
    _check_digest(data, source)
    return data


def _check_start(start: bytes, size: int, source: str) -> None:
    """Refuses what does not begin as a model file of `size` bytes does."""
    if len(start) < DIGEST_AT or start[8:] != PREFIX:
        raise ModelFileError(f"{source} is not a model file written by fastbp, or it is cut short")
    length = int.from_bytes(start[:8], "little")
    if not len(PREFIX) + DIGITS <= length <= min(MAX_HEADER, size - 8):
        raise ModelFileError(
            f"{source} is damaged: it announces a header of {length} bytes in {size} bytes"
        )


def _check_digest(data: bytes, source: str) -> None:
    end = DIGEST_AT + DIGITS
    found = hashlib.sha256(data[:DIGEST_AT])
    found.update(b"0" * DIGITS)
    found.update(memoryview(data)[end:])
    if data[DIGEST_AT:end] != found.hexdigest().encode():
        raise ModelFileError(
            f"{source} is damaged or cut short: its checksum does not match. Use another copy of it"
        )


def parse(text: bytes) -> dict[str, Any]:
    """Strict JSON: one object, no name twice, no NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name appears twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number in JSON")

    table = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(table, dict):
        raise TypeError("its header is not an object")
    return table


def _describe(metadata: Any) -> Description:
    """The model that the metadata describes; an error for anything unexpected."""
    metadata = {name: _text(name, value) for name, value in metadata.items()}
    del metadata["sha256"]
    described = parse(metadata.pop("fastbp").encode())
    if "quantized" in described:
        raise ValueError("it is a quantised network, which fastbp.load_quantized reads")
    version = checks.integer("format", described["format"])
    if version > FORMAT:
        raise ValueError(
            f"it has format {version}, but this version of fastbp reads up to format "
            f"{FORMAT}: update fastbp"
        )
    if not isinstance(described["layers"], list):
        raise TypeError("layers is not a list")
    training = described["training"]
    compiled = None if training is None else _compiled(training)
    return Description(
        layers=[from_config(layer) for layer in described["layers"]],
        inputs=checks.integer("inputs", described["inputs"]),
        dtype=dtype_name(described["dtype"]),
        seed=checks.integer("seed", described["seed"], 0, 2**64 - 1),
        epochs=checks.integer("epochs", described["epochs"], 0, 2**32),
        compiled=compiled,
        steps=0 if training is None else checks.integer("steps", training["steps"], 0, 2**63 - 1),
        frozen=_frozen(described),
        metadata=metadata,
        run=described.get("run") if training is not None else None,
        run_tensors=_run_tensors(described.get("run_tensors", [])),
    )


def _run_tensors(listed: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of the arrays that go with the state of a run."""
    if not isinstance(listed, list):
        raise TypeError("run_tensors is not a list")
    found = []
    for kind, shape in listed:
        if kind not in packing.DTYPES or not isinstance(shape, list) or len(shape) > 8:
            raise ValueError(f"run_tensors lists {describe([kind, shape])}")
        found.append((kind, tuple(checks.integer("shape", size, 0, 2**48) for size in shape)))
    return found


def _frozen(described: dict[str, Any]) -> network.Frozen:
    """Places of the layers that are not trained; older files do not name any."""
    places, count = described.get("frozen", []), len(described["layers"])
    if not isinstance(places, list):
        raise TypeError("frozen is not a list")
    return frozenset(checks.integer("frozen", place, 0, count - 1) for place in places)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"metadata {name!r} is not text")
    return value


def _compiled(training: Any) -> Compiled:
    if not isinstance(training, dict):
        raise TypeError("training is not an object")
    optimizer = spec.unpack("optimizer", training["optimizer"], optimizers.CLASSES)
    return Compiled(
        spec.unpack("loss", training["loss"], {"Loss": losses.Loss}),
        optimizer.bound(),
        metrics.get(training["metrics"]),
    )


def _places(table: dict[str, Any], described: Description, size: int) -> dict[str, int]:
    """Where each tensor begins in the data, which has `size` bytes.

    Raises ValueError or TypeError unless the table is exactly what the description calls for,
    without gaps, overlaps or bytes left over.
    """
    outputs = network.outputs(described.layers)
    network.gives_sequences(described.layers)  # raises where layers do not fit
    if described.compiled is not None:
        losses.check_outputs(described.compiled.loss, outputs, "identity")
    own = stored(described.dtype).name
    tensors = {name: (own, shape) for name, shape in described.shapes().items()}
    tensors.update({f"run.{i}": entry for i, entry in enumerate(described.run_tensors)})
    if list(table) != list(tensors):
        raise ValueError("its tensors are not those of its layers and optimizer")
    places, offset = {}, 0
    for name, (kind, shape) in tensors.items():
        end = offset + math.prod(shape) * np.dtype(kind).itemsize
        wanted = {
            "dtype": TENSOR_DTYPES[kind],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        # As text, because in Python True equals 1.
        if json.dumps(table[name], sort_keys=True) != json.dumps(wanted, sort_keys=True):
            raise ValueError(f"tensor {name!r} is {describe(table[name])}; expected {wanted}")
        places[name], offset = offset, end
    if offset != size:
        raise ValueError(f"its tensors take {offset} bytes, but {size} bytes follow the header")
    return places
