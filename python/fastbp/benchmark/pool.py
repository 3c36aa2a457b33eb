"""Processes for the contestants, of which never more than one runs: the others lie stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LAST_WORDS = 2000  # characters of a worker's stderr that are shown when it has died


class WorkerError(Exception):
    """A contestant could not do what it was asked for; the text says why."""


class Process:
    """A worker's process, stopped but while it answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastbp.benchmark.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """Sends a request, waits for the reply, and stops the process again.

        Raises WorkerError where the contestant failed or its process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps({"command": command, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ProcessLookupError):
            line = ""
        if not line:
            raise WorkerError(f"its process died: {self._last_words()}")
        self._signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # of a request that nobody has read
                    stream.close()

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def _last_words(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        text = self._stderr.read()[-LAST_WORDS:].strip()
        return f"status {status}" + (f"\n{text}" if text else "")


class Pool:
    """A process for each name, started when it is first asked."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}

    def ask(self, name: str, command: str, **request: Any) -> dict[str, Any]:
        """Raises WorkerError; a process that has died is started anew the next time."""
        if name not in self._processes:
            self._processes[name] = Process(name)
        try:
            return self._processes[name].ask(command, **request)
        except WorkerError:
            self._processes.pop(name).end()
            raise

    def end(self) -> None:
        for process in self._processes.values():
            process.end()
        self._processes.clear()


@contextmanager
def workers() -> Iterator[Pool]:
    """A pool that ends its processes whatever happens."""
    pool = Pool()
    try:
        yield pool
    finally:
        pool.end()
