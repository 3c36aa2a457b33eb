"""The exceptions of fastbp, and the messages that several modules share.

Wrong kinds raise TypeError, wrong values and shapes ValueError, a call out of order RuntimeError;
the classes here are for what a program may want to catch by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class DeviceNotAvailableError(RuntimeError):
    """A device, or a dtype on it, was asked for and cannot be used; nothing falls back silently.

    `reason` is a word for programs. Of CUDA: "no_backend" (no library is installed), "bad_library",
    "version_mismatch", "already_loaded" (another library serves the process), "no_driver",
    "old_driver", "driver_error", "no_device", "arch" (a GPU that the library was not built for),
    "forked" (CUDA was used before the process was forked). Of dtypes: "no_bfloat16",
    "no_float16", "no_tf32".
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ModelFileError(ValueError):
    """A file is no model that this version of fastbp can read: damaged, cut short, or foreign."""


class MemberError(RuntimeError):
    """One member of an Ensemble failed in fit; `member` is its number, __cause__ what it raised."""

    def __init__(self, message: str, member: int) -> None:
        super().__init__(message)
        self.member = member


def lookup(
    kind: str, given: object, table: Mapping[str, T], hints: Mapping[str, str] | None = None
) -> T:
    """The entry of that name; raises what `unknown_name` gives if there is none."""
    if isinstance(given, str) and given in table:
        return table[given]
    raise unknown_name(kind, given, table, hints)


def unknown_name(
    kind: str, given: object, choices: Iterable[str], hints: Mapping[str, str] | None = None
) -> Exception:
    """The error for a name that is not in a table: TypeError if it is no string, else ValueError.

    `hints` maps names that other libraries use to what to write here instead; otherwise the nearest
    spelling is offered.
    """
    import difflib  # only on the way to an error

    names = list(choices)
    listed = ", ".join(repr(name) for name in names)
    if not isinstance(given, str):
        return TypeError(f"{kind} must be one of {listed}; got {describe(given)}")
    hint = (hints or {}).get(given.lower().replace("-", "_").replace(" ", "_"))
    if hint is None:
        near = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else None
    return ValueError(
        f"unknown {kind} {given!r}" + (f": {hint}" if hint else "") + f" (choose from {listed})"
    )


def describe(value: object) -> str:
    """What came, for a message: the type and a value that is short enough to print."""
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 60 and "\n" not in text else kind
