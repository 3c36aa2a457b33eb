"""`--config FILE`: a command's options from a TOML or JSON file; the command line overrules it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .arguments import joined
from .errors import CommandError

OPTION = "--config"
HELP = (
    "TOML or JSON file with options by their long names: epochs = 50, hidden = [64, 32], "
    "no-header = true; tables are for the eye; the command line overrules it"
)


def expanded(argv: Sequence[str]) -> list[str]:
    """The arguments with the file's options in the place behind the command's name.

    Options that come later win, so that the command line overrules the file. Raises CommandError
    for a file that cannot be read or has values that are no options.
    """
    path = _path(argv)
    if path is None:
        return list(argv)
    # Behind them the option itself, lest a switch without its value takes what comes next.
    return [*argv[:1], *_arguments(_read(path), path), f"{OPTION}={path}", *argv[1:]]


def _path(argv: Sequence[str]) -> str | None:
    for place, argument in enumerate(argv):
        if argument == "--":
            return None
        name, equals, value = argument.partition("=")
        if len(name) >= len("--co") and OPTION.startswith(name):  # argparse takes beginnings, too
            if equals:
                return value
            if place + 1 < len(argv):
                return argv[place + 1]
    return None


def _read(path: str) -> Mapping[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.lower().endswith(".json") else _toml(text)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of JSON, TOML and UTF-8 alike
        raise CommandError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{path}: expected an object with options, got {type(found).__name__}")
    return found


def _toml(text: str) -> dict[str, Any]:
    for module in ("tomllib", "tomli"):  # of Python 3.11, and its ancestor
        try:
            found: dict[str, Any] = import_module(module).loads(text)
            return found
        except ImportError:
            continue
    raise CommandError(
        "TOML files need Python 3.11, or tomli (pip install tomli); JSON files do not"
    )


def _arguments(options: Mapping[str, Any], path: str) -> list[str]:
    found: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, dict):
            found += _arguments(value, path)
        elif value is True:
            found.append(option)
        elif isinstance(value, list) and all(map(_is_plain, value)):
            found.append(f"{option}={joined(map(str, value))}")
        elif _is_plain(value):
            found.append(f"{option}={value}")
        elif value is not False:
            raise CommandError(f"{path}: {name} = {value!r} is no value of an option")
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)
