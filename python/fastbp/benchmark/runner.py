"""A run: for each workload all contestants in turn, round after round, between two probes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastbp as bp

from .. import _core
from ..arrays import PROCESSOR_DTYPES
from . import contestants, machine
from .contestants import BASELINE, OWN, REFERENCE, Contestant
from .contestants.task import ALLOWED
from .peaks import Roofline
from .pool import Pool, WorkerError, workers
from .timing import Timing
from .workloads import Workload

FORMAT = "fastbp-benchmark/1"
STEADY = 0.03  # by how much the probes around a workload may be below the best of the run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run. seconds: of each contestant in each round."""

    workloads: Sequence[Workload]
    peers: bool = False
    dtypes: Sequence[str] = ("float32", "bfloat16")
    repeats: int = 7
    seconds: float = 0.1
    attempts: int = 2
    only: Sequence[str] = ()  # names of contestants; all where empty
    slow_starters: bool = False  # also peers that take half a minute to begin a workload


def run(options: Options, say: Say = lambda text: None) -> dict[str, Any]:
    """Times everything and returns the document that `--json` saves (schema.json)."""
    with workers() as pool, tempfile.TemporaryDirectory() as folder:
        say("probing the machine")
        field_ = _field(options, pool)
        peaks = _peaks(pool)
        best = peaks["gflops"]["float32"]  # the highest of all probes of the run
        results = []
        for number, workload in enumerate(options.workloads, start=1):
            say(f"{number}/{len(options.workloads)} {workload.name}")
            one = _Run(pool, workload, field_, Path(folder) / "reference.npz", best)
            results.append(one.document(options))
    _add_rooflines(results, Roofline.from_json(peaks))
    return {
        "format": FORMAT,
        "machine": machine.describe(field_),
        "options": {
            "repeats": options.repeats,
            "seconds": options.seconds,
            "peers": options.peers,
            "dtypes": list(options.dtypes),
        },
        "peaks": peaks,
        "workloads": results,
    }


def _field(options: Options, pool: Pool) -> list[Contestant]:
    found = contestants.field(
        peers=options.peers, dtypes=options.dtypes, slow_starters=options.slow_starters
    )
    if options.only:
        found = [c for c in found if c.name in options.only]
    dtypes = {c.dtype for c in found}
    refused = {d for d in dtypes if not pool.ask(OWN, "accepts", dtype=d)["accepted"]}
    return [c for c in found if c.dtype not in refused]


def _peaks(pool: Pool) -> dict[str, Any]:
    build = _core.build_info()
    threads = bp.get_num_threads()
    return {
        "threads": threads,
        "l2_bytes": (build.get("l2_bytes") or 0) * threads,
        "l3_bytes": build.get("l3_bytes") or 0,
        "gflops": pool.ask(OWN, "probe", dtypes=PROCESSOR_DTYPES),
        "gbytes": pool.ask(OWN, "bandwidths"),
    }


@dataclass(frozen=True)
class _Attempt:
    """All rounds of a workload, and the probes around them in GFLOP/s."""

    before: float
    after: float
    rounds: dict[str, list[list[float]]]

    def steady(self, best: float) -> bool:
        return min(self.before, self.after) >= (1 - STEADY) * best


class _Run:
    """One workload."""

    def __init__(
        self,
        pool: Pool,
        workload: Workload,
        field_: Sequence[Contestant],
        reference: Path,
        best: dict[str, float],
    ) -> None:
        self.pool = pool
        self.workload = workload
        self.contestants = [c for c in field_ if c.takes(workload)]
        self.request = {"workload": workload.to_json(), "reference": str(reference)}
        self.best = best
        self.failed: dict[str, str] = {}

    def document(self, options: Options) -> dict[str, Any]:
        prepared = self._prepare()
        attempt = self._attempt(list(prepared), options)
        attempts = 1
        while not attempt.steady(self.best["all"]) and attempts < options.attempts:
            attempt = self._attempt(list(prepared), options)
            attempts += 1
        results = {
            name: self._result(name, prepared[name], Timing.of(samples))
            for name, samples in attempt.rounds.items()
        }
        for name in prepared:
            self._ask(name, "release")
        workload = self.workload
        return {
            **workload.to_json(),
            "name": workload.name,
            "unit": workload.unit,
            "flop": workload.flop,
            "bytes": workload.traffic(4),
            "probe_gflops": {"before": attempt.before, "after": attempt.after},
            "steady": attempt.steady(self.best["all"]),
            "attempts": attempts,
            "results": results,
            "failed": self.failed,
        }

    def _prepare(self) -> dict[str, dict[str, Any]]:
        """The replies of those that are ready and right; the others are kept in `failed`."""
        if self.workload.kind == "train":
            self.pool.ask(REFERENCE, "reference", **self.request)
        allowed = ALLOWED[self.workload.kind]
        prepared = {}
        for contestant in self.contestants:
            reply = self._ask(contestant.name, "prepare", **self.request)
            if reply is None:
                continue
            if not reply["difference"] <= allowed[contestant.dtype]:
                self.failed[contestant.name] = (
                    f"its result is {reply['difference']:.2g} from the reference's; "
                    f"allowed {allowed[contestant.dtype]:g}"
                )
                self._ask(contestant.name, "release")
                continue
            prepared[contestant.name] = reply
        return prepared

    def _attempt(self, names: list[str], options: Options) -> _Attempt:
        before = self._probe()
        rounds = self._rounds(names, options)
        return _Attempt(before, self._probe(), rounds)

    def _rounds(self, names: list[str], options: Options) -> dict[str, list[list[float]]]:
        """Samples of each round; every other round in reverse, so that drift takes no side."""
        rounds: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in range(options.repeats):
            for name in reversed(names) if number % 2 else names:
                if name in rounds:
                    reply = self._ask(name, "time", seconds=options.seconds)
                    if reply is None:
                        del rounds[name]
                    else:
                        rounds[name].append(reply["samples"])
        return rounds

    def _result(self, name: str, reply: dict[str, Any], timing: Timing) -> dict[str, Any]:
        contestant = contestants.named(name)
        return {
            "library": contestant.library,
            "form": contestant.form,
            "dtype": contestant.dtype,
            "seconds": timing.to_json(),
            "difference": reply["difference"],
            "threads": reply["threads"],
        }

    def _probe(self) -> float:
        found = float(self.pool.ask(OWN, "probe", dtypes=["float32"])["float32"]["all"])
        self.best["all"] = max(self.best["all"], found)
        return found

    def _ask(self, name: str, command: str, **request: Any) -> dict[str, Any] | None:
        """The reply, or None where the contestant failed, which is noted."""
        try:
            return self.pool.ask(name, command, **request)
        except WorkerError as error:
            self.failed[name] = str(error)
            return None


def _add_rooflines(results: list[dict[str, Any]], roofline: Roofline) -> None:
    """To every result the time that its arithmetic and its traffic take at least, or None."""
    for document in results:
        workload = Workload.from_json(document)
        for result in document["results"].values():
            itemsize = 8 if result["dtype"] == "float64" else 4
            result["roofline_seconds"] = roofline.seconds(
                result["dtype"],
                workload.flop,
                workload.traffic(itemsize),
                workload.footprint(itemsize),
            )


def failures(document: dict[str, Any]) -> list[str]:
    """Where fastbp itself or the baseline failed, in words."""
    return [
        f"{workload['name']}, {name}: {reason}"
        for workload in document["workloads"]
        for name, reason in workload["failed"].items()
        if name.split()[0] in (OWN, BASELINE)
    ]
