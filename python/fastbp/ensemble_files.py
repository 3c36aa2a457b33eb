"""Ensembles in folders: model files, and "ensemble.json", which lists them.

    {"format": 1, "members": ["member-0-<16 digits>.safetensors", ...],
     "waiting": [...], "stopped": [...]}

The digits are those of the file's checksum. The list is written last, so that whatever stops `save`
the folder holds the old ensemble or the new one; then the files that it no longer names are
removed. `waiting` and `stopped` are where Ensemble.fit(resume=True) goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checks, durable, files
from .errors import ModelFileError
from .model import load as load_model

if TYPE_CHECKING:
    from .ensemble import Ensemble

FORMAT = 1
LIST = "ensemble.json"
MAX_LIST = 16 * 2**20  # bytes
NAME = re.compile(r"member-[0-9]{1,9}-[0-9a-f]{16}\.safetensors")


def save(ensemble: Ensemble, folder: str | os.PathLike[str]) -> None:
    """Ensemble.save; see there."""
    for member in ensemble.members:
        member._require_built()
    place = Path(folder)
    made = [path for path in (place, *place.parents) if not path.exists()]
    names: list[str] = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        for number, member in enumerate(ensemble.members):
            data = files.to_bytes(member)
            names.append(f"member-{number}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors")
            durable.write_durably(place / names[-1], [data])
        listed = {
            "format": FORMAT,
            "members": names,
            "waiting": sorted(ensemble._waiting),
            "stopped": sorted(ensemble._stopped),
        }
        durable.write_durably(place / LIST, [json.dumps(listed, indent=1).encode()])
    except BaseException:
        if made and not (place / LIST).exists():
            _remove_new(made, names)
        raise
    for path in place.iterdir():
        if NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()


def _remove_new(folders: list[Path], names: list[str]) -> None:
    """What a save has left that failed, with the folders that it made, the deepest first."""
    with contextlib.suppress(OSError):
        for name in names:
            (folders[0] / name).unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def load(folder: str | os.PathLike[str], device: str) -> Ensemble:
    """Ensemble.load; see there."""
    from .ensemble import Ensemble

    path = Path(folder) / LIST
    source = repr(os.fspath(path))
    with path.open("rb") as file:
        text = file.read(MAX_LIST + 1)
    try:
        if len(text) > MAX_LIST:
            raise ValueError(f"it is longer than {MAX_LIST} bytes")
        listed = files.parse(text)
        names, waiting, stopped = _checked(listed)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{source} does not list an ensemble: {reason}") from error
    ensemble = Ensemble([load_model(Path(folder) / name, device) for name in names])
    ensemble._waiting, ensemble._stopped = waiting, stopped
    return ensemble


def _checked(listed: dict[str, Any]) -> tuple[list[str], frozenset[int], frozenset[int]]:
    """Names of files in the folder, and numbers of members."""
    version = checks.integer("format", listed["format"])
    if version > FORMAT:
        raise ValueError(f"it has format {version}; this version of fastbp reads up to {FORMAT}")
    names = listed["members"]
    if not isinstance(names, list) or not names:
        raise TypeError("members is not a list of names")
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a member")
    last = len(names) - 1
    waiting, stopped = (
        frozenset(checks.integer(key, number, 0, last) for number in _list(key, listed[key]))
        for key in ("waiting", "stopped")
    )
    return names, waiting, stopped


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{key} is not a list")
    return value
