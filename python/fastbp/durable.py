"""Files that are whole or not there: written beside their place, on the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, BinaryIO

from .pool import Result, settle

# Bytes behind which the disk is asked to begin, while the next are copied and summed; in smaller
# pieces it has more to do.
PIECE = 4 * 2**20


def require_folder(target: Path) -> None:
    """Raises FileNotFoundError unless the folder that a file is to be written to is there."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))


def digest(chunks: Iterable[Any]) -> bytes:
    """The digits of the SHA-256 of these parts."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest().encode()


def write_durably(
    path: str | os.PathLike[str],
    chunks: Sequence[Any],
    digest_at: int | None = None,
    *,
    alone: bool = False,
) -> None:
    """Writes a new file beside `path`, forces it to the disk and only then gives it the name.

    With `digest_at` the checksum of the chunks is put there at the end. Another thread works it out
    meanwhile; `alone`, this one does, between the pieces.

    Whatever stops this, the name has the old content or the new one, and no other file stays behind
    unless the process is killed. A link is followed, and the permissions of a file that was there
    are kept. Raises FileExistsError for a device or a pipe, whose name would be taken from it.
    """
    target = Path(path).resolve()
    require_folder(target)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder: the file needs a name", str(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "this is a device or a pipe, not a file", str(path))
    temporary = target.with_name(f".fastbp-{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            if digest_at is None:
                _write(file, _pieces(chunks))
            else:
                digits = _write_and_digest(file, chunks, alone)
                file.seek(digest_at)
                file.write(digits)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _write_and_digest(file: BinaryIO, chunks: Sequence[Any], alone: bool) -> bytes:
    """Writes the chunks; the digits of their checksum."""
    if not alone:
        digits = _beside(lambda: digest(chunks))
        try:
            _write(file, _pieces(chunks))
        finally:  # nobody reads the chunks any more when this ends
            wait([digits])
        return digits.result()
    found = hashlib.sha256()

    def seen() -> Iterator[memoryview]:
        for piece in _pieces(chunks):
            yield piece
            found.update(piece)  # when the disk has it to do

    _write(file, seen())
    return found.hexdigest().encode()


def _beside(work: Callable[[], Result]) -> Future[Result]:
    """What work() gives, done by a thread of its own; by this one where none is to be had.

    So it is where the system has none left, and where the main thread has ended, behind which
    Python's pools of threads take nothing more.
    """
    future: Future[Result] = Future()

    try:
        threading.Thread(target=settle, args=(future, work), name="fastbp-file").start()
    except RuntimeError:
        settle(future, work)
    return future


def _pieces(chunks: Iterable[Any]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]


def _write(file: BinaryIO, pieces: Iterable[memoryview]) -> None:
    """Writes them one after the other, and has the disk begin with what is there."""
    written = begun = 0
    for piece in pieces:
        file.write(piece)
        written += len(piece)
        if written - begun >= PIECE and hasattr(os, "posix_fadvise"):
            file.flush()
            # That the pages are not needed makes the system write them, without waiting for it.
            os.posix_fadvise(file.fileno(), begun, written - begun, os.POSIX_FADV_DONTNEED)
            begun = written


def _sync_folder(folder: Path) -> None:
    """Forces the folder's entries to the disk, so that the new name survives a power loss."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows: folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Background:
    """Writes files beside what goes on, one after the other."""

    def __init__(self) -> None:
        self._in_work: Future[None] | None = None
        self._room = bytearray()  # for the copy; new memory would cost more than the copy

    def __reduce__(self) -> tuple[type[Background], tuple[()]]:
        """A copy, in another process or not, has nothing in work."""
        return Background, ()

    def write(self, path: str | os.PathLike[str], chunks: Sequence[Any], digest_at: int) -> None:
        """As write_durably, of the chunks as they are now; returns when they are copied.

        To be called behind `finish`, whose room it takes.
        """
        ends = list(itertools.accumulate(len(chunk) for chunk in chunks))
        if len(self._room) < ends[-1]:  # with some to spare: a history gets longer
            self._room = bytearray(ends[-1] + ends[-1] // 8)
        room = memoryview(self._room)[: ends[-1]]
        for end, chunk in zip(ends, chunks, strict=True):
            room[end - len(chunk) : end] = chunk
        # Alone: a third thread would take a processor from those that go on.
        self._in_work = _beside(lambda: write_durably(path, [room], digest_at, alone=True))

    def finish(self) -> None:
        """Waits for the file in work; raises what went wrong with it."""
        written, self._in_work = self._in_work, None
        if written is not None:
            written.result()
