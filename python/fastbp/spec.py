"""Descriptions: layers, initializers and losses are values made of their arguments alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from .errors import lookup


class Spec:
    """An immutable value: equal arguments make equal objects, and `config()` gives them back.

    A subclass stores each constructor argument under its own name with `_set`, so that
    `type(s)(**s.config()) == s`; model files rest on that.
    """

    def _set(self, **arguments: Any) -> None:
        self.__dict__.update(arguments)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__} does not change once made; make a new one with {name}={value!r}"
        )

    def config(self) -> dict[str, Any]:
        """The constructor arguments by name."""
        return dict(self.__dict__)

    @classmethod
    def packed_class(cls) -> str:
        """The name under which model files keep this class."""
        return cls.__name__

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), tuple(sorted(self.__dict__.items()))))


S = TypeVar("S")


def pack(value: Spec) -> dict[str, Any]:
    """A description as JSON data: its class name and its arguments, packed in turn."""
    return {
        "class": value.packed_class(),
        **{name: _packed(item) for name, item in value.config().items()},
    }


def _packed(item: Any) -> Any:
    if isinstance(item, tuple):
        return [_packed(part) for part in item]
    return pack(item) if isinstance(item, Spec) else item


def unpack(kind: str, data: Any, table: Mapping[str, type[S]]) -> S:
    """The description that `pack` wrote; its class is looked up in `table` and nowhere else.

    The constructor validates. Raises ValueError for a name that the table lacks, TypeError for
    wrong arguments.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{kind} must be an object; got {type(data).__name__}")
    arguments = dict(data)
    return lookup(kind, arguments.pop("class", None), table)(**arguments)
