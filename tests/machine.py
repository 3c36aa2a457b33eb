"""The machine under test: instruction sets, threads, the parallel threshold, and child processes.

`isa` is the fixture of the kernel tests. A test file says  isa = machine.isa  and every test that
takes `isa` runs once on each instruction set of this build; one that the machine lacks is skipped
with a reason, and one that was asked for and did not run is a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastbp import _core

COMPILED: list[str] = _core.isas()["compiled"]
AVAILABLE: list[str] = _core.isas()["available"]
THREADS = (1, 2, 3, 5)  # one, all of two cores, an odd split, more than there are cores


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Runs the block on that instruction set, and makes sure that it stayed in use."""
    before = _core.isas()["active"]
    _core.set_isa(name)
    try:
        assert _core.isas()["active"] == name
        yield
        assert _core.isas()["active"] == name, f"{name} was asked for and did not run to the end"
    finally:
        _core.set_isa(before)


@pytest.fixture(params=COMPILED)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each compiled instruction set in turn; skipped where the processor cannot run it."""
    name: str = request.param
    if name not in AVAILABLE:
        pytest.skip(f"this machine cannot run {name}; it has {', '.join(AVAILABLE)}")
    with using_isa(name):
        yield name


def on_every_isa(result: Callable[[], Any]) -> dict[str, Any]:
    """result() on each available instruction set, by name."""
    results = {}
    for name in AVAILABLE:
        with using_isa(name):
            results[name] = result()
    return results


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Runs the block on exactly `count` threads, however little work there is."""
    before, threshold = _core.get_num_threads(), _core.get_parallel_threshold()
    _core.set_num_threads(count)
    _core.set_parallel_threshold(0)
    try:
        yield
    finally:
        _core.set_num_threads(before)
        _core.set_parallel_threshold(threshold)


@contextmanager
def ctrl_c_when(ready: Callable[[], bool], delay: float = 0) -> Iterator[list[float]]:
    """Ctrl-C for the block, once, so many seconds after ready() has become true, as another thread
    sees it, however long that takes; the list gets the moment, of time.perf_counter."""
    ended = threading.Event()
    sent: list[float] = []

    def knock() -> None:
        while not ready():
            if ended.wait(0.001):
                return
        time.sleep(delay)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def in_child(work: Callable[[], object], timeout: float = 120) -> None:
    """Runs work() in a forked child, which a fault may kill, or a lost lock stop, without ending
    the test run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the child hung: killed after {timeout} s")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"the child {f'died of signal {-code}' if code < 0 else 'failed: see stderr'}"


def in_python(program: str, *arguments: str, timeout: float = 300) -> str:
    """Runs a program text in a fresh interpreter; its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
