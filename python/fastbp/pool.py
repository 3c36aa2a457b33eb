"""Pool: several networks trained at once, each on one thread of the processor.

The engine's thread team serves one caller at a time, and a small network makes nothing of a second
thread. So the jobs of a pool run on threads of Python's, as many as get_num_threads() says; the
native calls release Python's lock and have one thread each (csrc/backend/pool_terms.h), the last
job all of them. No bit depends on that.

Signals reach Python's main thread alone. What their handlers raise there, in `run`, ends the jobs
between two steps before it goes on its way; a second one does not wait for them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from . import _core
from .interrupts import Interrupts

Result = TypeVar("Result")
Job = Callable[[], Any]
Jobs = Sequence[Job]
Futures = Sequence[Future[Any]]

PATIENCE = 0.1  # seconds: a signal that another thread has taken does not wake the main one


class Pool:
    """Runs jobs side by side on up to `workers` threads, once.

    On fewer where the system has no more to give, and if it has none on the one that calls `run`.

    Attributes:
        futures: of the jobs of `run`, in their order: what became of each.
    """

    def __init__(self, workers: int) -> None:
        self.futures: list[Future[Any]] = []
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._terms = _core.PoolTerms()

    def run(
        self, jobs: Jobs, finished: Callable[[int], object], ended: Callable[[Futures], object]
    ) -> None:
        """Runs the jobs, beginning them in their order; calls finished(number) after each.

        Ends early when one has raised, which is left to be found in `futures`. Whatever ends it, no
        job runs any more when it returns, but where a second signal has not let it wait for that;
        and ended(futures) is called, which signals do not disturb.
        """
        self.futures = [Future() for _ in jobs]
        interrupts = Interrupts()
        interrupts.install()
        try:
            self._begin(jobs)
            if self._threads:
                self._watch(_ends(self.futures), finished, interrupts)
        finally:
            try:
                self._leave(ended)
            finally:
                interrupts.remove()
        if jobs and not self._threads:
            alone = InTurn()
            try:
                alone.run(jobs, finished, ended)
            finally:
                self.futures = alone.futures

    def _begin(self, jobs: Jobs) -> None:
        """Starts the threads, each of which does one job after the other."""
        waiting = deque(zip(jobs, self.futures, strict=True))
        while len(self._threads) < min(self._workers, len(jobs)):
            thread = threading.Thread(target=self._work, args=(waiting,), name="fastbp-pool")
            try:
                thread.start()
            except RuntimeError:  # the system has no more, or the interpreter is ending
                return
            self._threads.append(thread)

    def _leave(self, ended: Callable[[Futures], object]) -> None:
        try:
            self.close()
        finally:
            if self._threads:
                ended(self.futures)

    def _work(self, waiting: deque[tuple[Job, Future[Any]]]) -> None:
        self._terms.__enter__()  # for as long as this thread lives
        while waiting:
            try:
                job, future = waiting.popleft()
            except IndexError:  # another thread was quicker
                return
            if future.set_running_or_notify_cancel():
                settle(future, job)

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
        for future in self.futures:
            future.cancel()
        for thread in self._threads:
            thread.join()


def settle(future: Future[Result], job: Callable[[], Result]) -> None:
    """Leaves in the future what comes of the job."""
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)


def _ends(futures: Futures) -> SimpleQueue[int]:
    """A queue that gets the number of each when it has ended."""
    ends: SimpleQueue[int] = SimpleQueue()
    for number, future in enumerate(futures):
        future.add_done_callback(partial(_put, ends, number))
    return ends


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

    def run(
        self, jobs: Jobs, finished: Callable[[int], object], ended: Callable[[Futures], object]
    ) -> None:
        """See Pool.run."""
        self.futures = [Future() for _ in jobs]
        interrupts = Interrupts()
        interrupts.install()
        try:
            for number, (job, future) in enumerate(zip(jobs, self.futures, strict=True)):
                future.set_running_or_notify_cancel()
                interrupts.open = True
                try:
                    settle(future, job)
                finally:
                    interrupts.open = False
                if future.exception() is not None:
                    return
                finished(number)
                interrupts.deliver()
        finally:
            try:
                ended(self.futures)
            finally:
                interrupts.remove()


def failure(future: Future[Any]) -> BaseException | None:
    """What the job raised, if it has."""
    return future.exception() if future.done() and not future.cancelled() else None


def began(future: Future[Any]) -> bool:
    """Whether the job began."""
    return not future.cancelled() and (future.running() or future.done())


def threads_to_be_had(wanted: int) -> int:
    """How many threads of so many the system gives."""
    released, threads = threading.Event(), list[threading.Thread]()
    try:
        while len(threads) < wanted:
            thread = threading.Thread(target=released.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:  # the system has no more
        pass
    finally:
        released.set()
        for thread in threads:
            thread.join()
    return len(threads)
