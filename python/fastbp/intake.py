"""Intake: what a model makes of the data that it is given, before the engine sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, devices, network, weights
from .arrays import Array
from .embedding import Embedding, check_entries, one_a_step
from .layers import Layer
from .lazy import LazyRows, is_lazy
from .network import Compiled
from .sequences import Sequences, lengths_of, padded_as, require_no_sequences, running
from .structure import Masking, Reshape


class Intake:
    """The part of a Chain that checks and converts rows, sequences, targets and weights.

    The attributes are Chain's; see there.
    """

    _layers: list[Layer]
    _inputs: int | None
    _outputs: int | None
    _flattens: bool
    _reads_sequences: bool
    _embedding: Embedding | None
    _masking: Masking | None
    _device: str
    _dtype: np.dtype[Any]

    if TYPE_CHECKING:

        @property
        def outputs(self) -> int: ...

        def _require_compiled(self) -> Compiled: ...

    def _check_rows(
        self,
        x: Any,
        y: Any,
        compiled: Compiled,
        names: tuple[str, str] = ("X", "y"),
        width: int | None = None,
    ) -> tuple[Any, Any]:
        x = self._features(x, names[0], width=width)
        rows = x.shape[0]
        if rows == 0:
            raise ValueError(f"{names[0]} has no rows; got shape {x.shape}")
        steps = x.shape[1] if self._gives_sequences() else None
        if arrays.is_on_device(x.values if isinstance(x, Sequences) else x):
            from . import device_rows

            ends = x.lengths_there if isinstance(x, Sequences) and steps is not None else None
            kind = self.outputs, compiled.loss, self._dtype, devices.cuda_number(self._device)
            return x, device_rows.targets(y, rows, *kind, names, steps, ends)
        y = self._host(names[1], y)
        if isinstance(x, Sequences) and steps is not None:
            if isinstance(y, (list, tuple)):
                y = padded_as(names[1], y, x.running())
            if getattr(y, "shape", ())[:2] == (rows, steps):
                y = x.cleared(y)
        return x, arrays.targets(y, rows, self.outputs, compiled.loss, self._dtype, names, steps)

    def _features(
        self, x: Any, name: str = "X", *, finite: bool = True, width: int | None = None
    ) -> Any:
        """Rows, or sequences where the layers read them, in the engine's dtype."""
        kind = self._inputs or width, self._dtype, name
        if self._stays_there(x):
            return self._features_there(x, name, finite, kind[0])
        x = self._host(name, x)
        if self._embedding is not None and self._reads_sequences and kind[0] in (None, 1):
            x = one_a_step(name, x)
        first = self._layers[0]
        if isinstance(first, Reshape) and not isinstance(x, Sequences):
            x = first.rows(x, name, self._reads_sequences)
        if self._masking is not None and not isinstance(x, Sequences):
            x = self._masking.sequences(x, name)
        if not self._reads_sequences:
            require_no_sequences(x, name)
            ready = arrays.features(x, *kind, finite=finite, flatten=self._flattens)
        elif isinstance(x, Sequences):
            values = arrays.features(x.values, *kind, finite=False, sequences=True)
            if finite and arrays.first_non_finite(values) >= 0:  # behind the ends it does not count
                values = arrays.features(x.cleared(), *kind, sequences=True)
            ready = values
        else:
            ready = arrays.features(x, *kind, finite=finite, sequences=True)
        if self._embedding is not None:
            ends = x.cleared(ready) if isinstance(x, Sequences) else ready
            check_entries(ends, self._embedding, name)
        return x.like(ready) if isinstance(x, Sequences) else ready

    def _stays_there(self, x: Any) -> bool:
        """Whether rows lie on a GPU and are read there by a model that is on one too."""
        if not devices.is_cuda(self._device):
            return False
        values = x.values if isinstance(x, Sequences) else x
        one_each = self._embedding is not None and self._reads_sequences
        reshapes = isinstance(self._layers[0], Reshape) or one_each or self._masking is not None
        return arrays.is_on_device(values) and (not reshapes or isinstance(x, Sequences))

    def _features_there(self, x: Any, name: str, finite: bool, width: int | None) -> Any:
        """As _features, of rows on the model's GPU."""
        from . import device_rows

        number, lengths = devices.cuda_number(self._device), None
        if isinstance(x, Sequences):
            if not self._reads_sequences:
                require_no_sequences(x, name)
            lengths = device_rows.sent(x.lengths, number)
        values = device_rows.features(
            x.values if isinstance(x, Sequences) else x,
            width,
            self._dtype,
            number,
            name,
            finite=finite,
            flatten=self._flattens,
            sequences=self._reads_sequences,
            lengths=lengths,
            entries=self._embedding,
        )
        return x.like(values, there=lengths) if isinstance(x, Sequences) else values

    def _host(self, name: str, value: Any) -> Any:
        """Of an array on a GPU, where the model is on one too, a copy on the host."""
        if not (arrays.is_on_device(value) and devices.is_cuda(self._device)):
            return value
        from . import device_rows

        return device_rows.to_host(name, value)

    def _gives_sequences(self) -> bool:
        """Whether outputs have an axis of steps."""
        return self._reads_sequences and network.gives_sequences(self._layers)

    def _counted(self, x: Any) -> int:
        """Number of outputs for x over which a loss is a mean."""
        if not self._gives_sequences():
            return len(x)
        return int(x.lengths.sum()) if isinstance(x, Sequences) else len(x) * int(x.shape[1])

    def _is_lazy(self, x: Any) -> bool:
        """Whether x is better not converted as a whole. Sequences and numbers of entries are."""
        whole = self._reads_sequences or self._embedding is not None
        return not whole and is_lazy(x, self._dtype, native=self._device == "cpu")

    def _lazy(
        self, x: Any, width: int | None = None, name: str = "X", *, finite: bool = True
    ) -> LazyRows:
        """Those rows, checked."""
        native = self._device == "cpu"
        return LazyRows(x, self._inputs or width, self._dtype, name, native=native, finite=finite)

    def _in_rows(self, x: Any) -> Any:
        """Of a network that begins with Flatten, an array of integers as rows."""
        integers = isinstance(x, np.ndarray) and x.dtype.kind in "biu"
        if self._flattens and integers and x.ndim > 2 and len(x):
            return x.reshape(len(x), -1)
        return x

    def _new_outputs(self, x: Any) -> Array:
        """An array for the network's outputs for x."""
        return np.empty(self._outputs_shape(x), self._dtype)

    def _outputs_shape(self, x: Any) -> tuple[int, ...]:
        steps = x.shape[1:2] if self._gives_sequences() else ()
        return (x.shape[0], *steps, self.outputs)

    def _room_for_outputs(self, rows: Any, given: Any) -> tuple[Any, Any]:
        """An array of the caller's kind for the outputs for checked rows, and what the engine
        writes to."""
        values: Any = rows.values if isinstance(rows, Sequences) else rows
        if not arrays.is_on_device(values):
            made = self._new_outputs(rows)
            return made, made
        from . import device_rows

        like = given.values if isinstance(given, Sequences) else given
        return device_rows.room_like(like, self._outputs_shape(rows), self._dtype, values.device)

    def _weights(
        self, x: Any, y: Array, sample_weight: Any, class_weight: weights.ClassWeight = None
    ) -> Array | None:
        """The factors of the losses of checked rows x with targets y; None where all are alike."""
        if sample_weight is None and class_weight is None:
            return None
        loss = self._require_compiled().loss
        runs = self._runs(x)
        outputs = self._outputs or network.outputs(self._layers, x.shape[-1])
        if arrays.is_on_device(y):
            from . import device_rows

            rows: Any = y
            made: Any = device_rows.factors(
                sample_weight, class_weight, rows, loss, self._dtype, runs, outputs
            )
            return made  # type: ignore[no-any-return]
        sample_weight = self._host("sample_weight", sample_weight)
        return weights.rows(
            sample_weight, class_weight, y, loss, self._dtype, runs, outputs=outputs
        )

    def _samples(self, sample_weight: Any, x: Any, y: Any, name: str = "sample_weight") -> Any:
        """sample_weight as float64, checked, one for each loss; where the targets y are."""
        runs = self._runs(x)
        if arrays.is_on_device(y) and runs is None:
            from . import device_rows

            return device_rows.sample_weights(sample_weight, len(y), y.device, name)
        return weights.samples(self._host(name, sample_weight), len(y), name, runs)

    def _runs(self, x: Any) -> Array | None:
        """Of outputs at every step, which steps of the rows x count, (n, steps)."""
        return running(x.shape[:2], lengths_of(x)) if self._gives_sequences() else None
