"""From the tuples that Engine takes to the stages of a network."""

from collections.abc import Callable, Sequence
from typing import Any

from .activations import Activation
from .norms import BatchNorm, Norm, Normalize
from .ops import find_activation
from .recurrent import find_cell
from .stages import Add, Dense, Dropout, Elementwise, Embedding, Scan, Softmax, Stage

_BLOCK = 16  # each layer's parameters start at a multiple of this: 64 bytes of float32


class Builder:
    """Makes the stages one after the other, and lays out their parameters and their state."""

    def __init__(self, inputs: int, sequences: bool = False) -> None:
        self.width = inputs
        self._reads_sequences = self.sequence = sequences  # whether the last output has steps
        self._puts_out_steps = [sequences]  # the same of what each layer reads
        self.parameter_count = self.state_count = self.carried_width = 0
        self.stages: list[Stage] = []
        self._makers: dict[str, Callable[..., Stage]] = {
            "dense": self._dense,
            "activation": self._activation,
            "dropout": self._dropout,
            "layer_norm": self._layer_norm,
            "batch_norm": self._batch_norm,
            "normalize": self._normalize,
            "embedding": self._embedding,
            "add": self._add,
            "scan": self._scan,
            "softmax": self._softmax,
        }

    def add(self, entry: Sequence[Any]) -> None:
        """Appends the stage of one of the tuples that Engine takes."""
        kind, *arguments = entry
        if kind not in self._makers:
            *names, last = map(repr, self._makers)
            raise ValueError(f"layers: expected {', '.join(names)} or {last}, got {kind!r}")
        stage = self._makers[kind](*arguments)
        self.stages.append(stage)
        self.width = stage.outputs
        self._puts_out_steps.append(self.sequence)
        self.parameter_count += _padded(stage.size)
        self.state_count += _padded(stage.state_rows * stage.outputs)

    def _dense(self, units: int, use_bias: bool) -> Stage:
        if units < 1:
            raise ValueError(f"units: expected at least 1, got {units}")
        block = (self.parameter_count, self.width, int(units), bool(use_bias))
        return Dense(self.width, int(units), *block)

    def _activation(self, name: str | Activation, param: float) -> Stage:
        entry = find_activation(name)
        return Elementwise(self.width, self.width, entry=entry, param=float(param))

    def _streams(self) -> int:
        return sum(stage.streams for stage in self.stages)

    def _dropout(self, rate: float, per_sequence: bool = False) -> Stage:
        _check_rate(rate)
        return Dropout(
            self.width,
            self.width,
            rate=float(rate),
            stream=self._streams(),
            per_sequence=bool(per_sequence),
        )

    def _layer_norm(self, epsilon: float, center: bool, scale: bool) -> Stage:
        _check_norm(epsilon)
        block = (self.parameter_count, int(scale), self.width, bool(center))
        return Norm(self.width, self.width, *block, epsilon=float(epsilon))

    def _batch_norm(self, epsilon: float, center: bool, scale: bool, momentum: float) -> Stage:
        _check_norm(epsilon, momentum)
        if self._reads_sequences:
            raise ValueError("layers: no 'batch_norm' in a network of sequences")
        return BatchNorm(
            self.width,
            self.width,
            self.parameter_count,
            int(scale),
            self.width,
            bool(center),
            epsilon=float(epsilon),
            axis=0,
            momentum=float(momentum),
            state_offset=self.state_count,
            state_rows=2,
        )

    def _normalize(self) -> Stage:
        return Normalize(self.width, self.width, state_offset=self.state_count, state_rows=2)

    def _softmax(self) -> Stage:
        return Softmax(self.width, self.width)

    def _embedding(self, entries: int, units: int) -> Stage:
        if entries < 1 or units < 1:
            raise ValueError(f"entries, units: expected at least 1, got {entries} and {units}")
        if self.stages:
            raise ValueError("layers: an 'embedding' stands first")
        block = (self.parameter_count, int(entries), int(units), False)
        return Embedding(self.width, self.width * int(units), *block)

    def _add(self, span: int) -> Stage:
        place = len(self.stages) - span
        if span < 1 or place < 0:
            raise ValueError(f"span: expected 1 to the number of layers before, got {span}")
        other = self.stages[place].inputs
        if other != self.width:
            raise ValueError(
                f"add: expected as many outputs as inputs, got {self.width} and {other}"
            )
        if self._puts_out_steps[place] != self.sequence:
            raise ValueError("add: expected an output for every step of its input")
        return Add(self.width, self.width, place=place)

    def _scan(
        self,
        name: str,
        units: int,
        use_bias: bool,
        sequence: bool,
        reverse: bool,
        ways: str = "one",
        truncate: int = 0,
        rate: float = 0.0,
    ) -> Stage:
        cell = find_cell(name)
        if not self.sequence:
            raise ValueError("layers: a 'scan' reads sequences")
        _check_scan(ways, reverse, truncate, rate)
        both, cols = ways != "one", cell.gates * units
        wide = cols * (2 if both else 1)
        if units < 1 or not (self.stages and isinstance(self.stages[-1], Dense)):
            raise ValueError("layers: a 'scan' stands behind a 'dense' layer of all its gates")
        if self.width != wide:
            raise ValueError(
                f"layers: a 'scan' of {units} units stands behind a 'dense' layer of all its gates"
            )
        self.sequence = bool(sequence)
        bias = cell.two_biases and bool(use_bias)
        stage = Scan(
            wide,
            units * (2 if ways == "concat" else 1),
            self.parameter_count,
            2 * units + bias if both else units,
            cols,
            bias,
            units=int(units),
            cell=cell,
            sequence=self.sequence,
            reverse=bool(reverse),
            ways=ways,
            truncate=int(truncate),
            rate=float(rate),
            stream=self._streams(),
            carried=self.carried_width,
        )
        self.carried_width += stage.carries
        return stage


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")


def _check_scan(ways: str, reverse: bool, truncate: int, rate: float) -> None:
    if ways not in ("one", "concat", "sum"):
        raise ValueError(f"ways: expected 'one', 'concat' or 'sum', got {ways!r}")
    if reverse and ways != "one":
        raise ValueError("reverse: a 'scan' of both ways has no direction")
    if truncate < 0:
        raise ValueError(f"truncate: expected at least 0, got {truncate}")
    _check_rate(rate)


def _padded(elements: int) -> int:
    """That many elements in whole blocks."""
    return -(-elements // _BLOCK) * _BLOCK


def _check_norm(epsilon: float, momentum: float = 0.0) -> None:
    if not epsilon >= 0 or not 0 <= momentum <= 1:
        raise ValueError(
            "epsilon, momentum: expected epsilon >= 0 and 0 <= momentum <= 1, got "
            f"{epsilon} and {momentum}"
        )
