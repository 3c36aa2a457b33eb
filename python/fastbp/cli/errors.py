"""The error that a command reports as one message on stderr with exit status 2."""

from __future__ import annotations


class CommandError(Exception):
    """A mistake in the arguments or the data, in words that say what to do about it."""
