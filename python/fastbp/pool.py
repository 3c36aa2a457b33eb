"""Pool: several networks trained at once, each on one thread of the processor.

The engine's thread team serves one caller at a time, and a small network makes nothing of a second
thread. So the jobs of a pool run on threads of Python's, as many as get_num_threads() says; the
native calls release Python's lock and have one thread each (csrc/backend/pool_terms.h), the last
job all of them. No bit depends on that.

Signals reach Python's main thread alone. What their handlers raise there, in `run`, ends the jobs
between two steps before it goes on its way; a second one does not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from . import _core
from .interrupts import Interrupts

PATIENCE = 0.1  # seconds: a signal that another thread has taken does not wake the main one


class Pool:
    """Runs jobs side by side on `workers` threads, once.

    Attributes:
        futures: of the jobs of `run`, in their order: what became of each.
    """

    def __init__(self, workers: int) -> None:
        self.futures: list[Future[Any]] = []
        self._terms = _core.PoolTerms()
        self._threads = ThreadPoolExecutor(workers, "fastbp-pool", self._terms.__enter__)

    def run(self, jobs: Sequence[Callable[[], Any]], finished: Callable[[int], object]) -> None:
        """Runs the jobs, beginning them in their order; calls finished(number) after each.

        Ends early when one has raised, which is left to be found in `futures`. Whatever ends it, no
        job runs any more when it returns, but where a second signal has not let it wait for that.
        """
        interrupts = Interrupts()
        interrupts.install()
        try:
            self._watch(self._begin(jobs), finished, interrupts)
        finally:
            self.close()
            interrupts.remove()

    def _begin(self, jobs: Sequence[Callable[[], Any]]) -> SimpleQueue[int]:
        """Hands the jobs to the threads; the queue gets the numbers of those that have ended."""
        ends: SimpleQueue[int] = SimpleQueue()
        for number, job in enumerate(jobs):
            self.futures.append(self._threads.submit(job))
            self.futures[-1].add_done_callback(partial(_put, ends, number))
        return ends

    def _watch(
        self, ends: SimpleQueue[int], finished: Callable[[int], object], interrupts: Interrupts
    ) -> None:
        for left in range(len(self.futures) - 1, -1, -1):
            number = _next(ends, interrupts)
            if self.futures[number].exception() is not None:
                return
            if left == 1:
                self._terms.threads = _core.get_num_threads()
            finished(number)

    def close(self) -> None:
        """Ends the jobs in progress between two steps, and leaves those out that wait."""
        self._terms.stop()
        self._threads.shutdown(cancel_futures=True)


def _put(ends: SimpleQueue[int], number: int, _: Future[Any]) -> None:
    ends.put(number)


def _next(ends: SimpleQueue[int], interrupts: Interrupts) -> int:
    """The next job that has ended. Here, and nowhere else in `run`, signals take effect."""
    while True:
        interrupts.deliver()
        interrupts.open = True
        try:
            return ends.get(timeout=PATIENCE)
        except Empty:
            pass
        finally:
            interrupts.open = False


class InTurn:
    """The same for jobs that go one after the other, in the thread that calls `run`."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def run(self, jobs: Sequence[Callable[[], Any]], finished: Callable[[int], object]) -> None:
        """See Pool.run."""
        self.futures = [Future() for _ in jobs]
        for number, (job, future) in enumerate(zip(jobs, self.futures, strict=True)):
            future.set_running_or_notify_cancel()
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
                return
            finished(number)


def failure(future: Future[Any]) -> BaseException | None:
    """What the job raised, if it has."""
    return future.exception() if future.done() and not future.cancelled() else None


def began(future: Future[Any]) -> bool:
    """Whether the job began."""
    return not future.cancelled() and (future.running() or future.done())
