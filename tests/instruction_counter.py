"""Counts the user instructions of a call: a forked child makes it, one instruction at a time.

Exact for instructions of any kind, and blind to what else the machine does, where a time would say
more about its neighbours. It needs Linux and ptrace, which a container may refuse.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_TRACEME, _SINGLESTEP = 0, 9
_MOST = 2_000_000  # a minute of stepping on a slow machine: not the small call that was meant


class CannotCountError(Exception):
    """This system lets no process be traced; the text says why."""


def instructions(work: Callable[[], object]) -> int:
    """Instructions that one thread runs in work() and for calling it; work() is called twice.

    Raises CannotCountError where the system does not let a process be traced.
    """
    if not sys.platform.startswith("linux"):
        raise CannotCountError(
            f"instructions are counted by Linux's ptrace; this is {sys.platform}"
        )
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    child = os.fork()
    if child == 0:
        try:
            work()  # a forked process has to find its threads and its memory anew
            if ptrace(_TRACEME, 0, None, None) == 0:
                here = os.getpid()
                os.kill(here, signal.SIGSTOP)
                work()
                os.kill(here, signal.SIGSTOP)
        finally:
            os._exit(0)
    stopped = True
    try:
        _, status = os.waitpid(child, 0)
        stopped = os.WIFSTOPPED(status)
        if not stopped:
            raise CannotCountError("ptrace is not permitted here: PTRACE_TRACEME failed")
        return _steps_to_stop(ptrace, child)
    finally:
        if stopped:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _steps_to_stop(ptrace: Callable[..., int], child: int) -> int:
    for count in range(_MOST):
        if ptrace(_SINGLESTEP, child, None, None) != 0:
            raise CannotCountError(f"ptrace cannot step: {os.strerror(ctypes.get_errno())}")
        _, status = os.waitpid(child, 0)
        assert os.WIFSTOPPED(status), f"the child ended while it was counted: status {status:#x}"
        if os.WSTOPSIG(status) == signal.SIGSTOP:
            return count
    raise AssertionError(f"more than {_MOST} instructions")
