"""The `fastbp` command in this process; conftest.py has it as the fixture `run`."""

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]
