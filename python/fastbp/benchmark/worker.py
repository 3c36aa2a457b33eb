"""One contestant in a process of its own: reads requests as lines of JSON, answers with such lines.

    {"command": "prepare", "workload": {...}, "reference": PATH}  -> threads, difference
    {"command": "reference", "workload": {...}, "reference": PATH}  -> nothing; writes the file
    {"command": "time", "seconds": S}     -> samples: seconds per unit
    {"command": "release"}                -> nothing; forgets the workload
    {"command": "probe", "dtypes": [...]}, {"command": "bandwidths"}  -> rates
    {"command": "accepts", "dtype": D}    -> accepted

Libraries keep their threads spinning for a while after a call; apart from each other, and with all
but one process stopped (pool.py), they cannot disturb one another. What libraries print goes to
stderr. The end of the input ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import contestants, peaks
from .contestants.task import Reference, Task
from .timing import calibrate, samples
from .workloads import Workload

Reply = dict[str, Any]


class Worker:
    """Answers requests about one contestant."""

    def __init__(self, name: str) -> None:
        self.contestant = contestants.named(name)
        self.task: Task | None = None
        self.loops = 1

    def answer(self, request: dict[str, Any]) -> Reply:
        """The reply to a request, or {"error": ...}."""
        commands: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "prepare": self.prepare,
            "reference": self.reference,
            "time": self.time,
            "release": self.release,
            "probe": lambda request: peaks.probe(request["dtypes"]),
            "bandwidths": lambda request: peaks.bandwidths(),
            "accepts": self.accepts,
        }
        try:
            return commands[request["command"]](request)
        except Exception as error:  # whatever a library raises belongs into the report
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}

    def prepare(self, request: dict[str, Any]) -> Reply:
        workload = Workload.from_json(request["workload"])
        library = self.contestant.load()
        reference = Reference(Path(request["reference"]))
        self.task = library.prepare(self.contestant, workload, reference)
        self.loops = calibrate(self.task.call)
        return {"threads": self.task.threads, "difference": self.task.difference}

    def reference(self, request: dict[str, Any]) -> Reply:
        workload = Workload.from_json(request["workload"])
        self.contestant.load().save_reference(workload, Reference(Path(request["reference"])))
        return {}

    def time(self, request: dict[str, Any]) -> Reply:
        assert self.task is not None, "time before prepare"
        found = samples(self.task.call, self.loops, request["seconds"])
        return {"samples": [value / self.task.units for value in found]}

    def release(self, request: dict[str, Any]) -> Reply:
        self.task = None
        gc.collect()
        return {}

    def accepts(self, request: dict[str, Any]) -> Reply:
        return {"accepted": self.contestant.load().accepts(request["dtype"])}


def main(name: str) -> None:
    # A group of its own: the terminal's Ctrl-C reaches the parent alone, which ends its workers;
    # and where the parent is killed, the system wakes and ends a group that lies stopped.
    os.setpgrp()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(name)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
