"""The saved file of a run: writing, reading, checking against schema.json, joining.

The check knows the words of JSON Schema that schema.json uses: type, enum, const, required,
properties, additionalProperties, items, minimum, $ref to a definition.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from .workloads import LARGE, STEPS

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


class DocumentError(ValueError):
    """A file is not what `fastbp bench --json` writes; the text says where."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a saved run."""
    text = resources.files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Raises DocumentError, or OSError where the file cannot be read."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path} is not JSON: {error}") from error
    for fault in faults(document, schema()):
        raise DocumentError(f"{path} is not a file of 'fastbp bench --json': {fault}")
    return document


def joined(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document with the workloads of several; of a workload that is in two, the last counts.

    Training steps come in the order of the suite, then the others as they were given.
    Machine, options and peaks are those of the first. Raises DocumentError where the runs are of
    different machines or versions.
    """
    first = documents[0]
    for other in documents[1:]:
        for name in ("cpu", "isa", "threads", "fastbp"):
            if first["machine"][name] != other["machine"][name]:
                raise DocumentError(
                    f"the files are of different runs: {name} is {first['machine'][name]!r} and "
                    f"{other['machine'][name]!r}"
                )
    workloads = {w["name"]: w for document in documents for w in document["workloads"]}
    order = {workload.name: place for place, workload in enumerate((*STEPS, *LARGE))}
    ordered = sorted(workloads.values(), key=lambda w: order.get(w["name"], len(order)))
    return {**first, "workloads": ordered}


def faults(value: Any, rule: dict[str, Any], at: str = "the document") -> Iterator[str]:
    """What does not fit the rule, in words, the first faults first."""
    yield from _faults(value, rule, at, rule.get("$defs", {}))


def _faults(value: Any, rule: dict[str, Any], at: str, named: dict[str, Any]) -> Iterator[str]:
    if "$ref" in rule:
        rule = named[rule["$ref"].rpartition("/")[2]]
    if "type" in rule and not _has_type(value, rule["type"]):
        yield f"{at} should be {rule['type']}, is {type(value).__name__}"
        return
    if "const" in rule and value != rule["const"]:
        yield f"{at} should be {rule['const']!r}, is {value!r}"
    if "enum" in rule and value not in rule["enum"]:
        yield f"{at} should be one of {rule['enum']}, is {value!r}"
    if "minimum" in rule and isinstance(value, (int, float)) and value < rule["minimum"]:
        yield f"{at} should be at least {rule['minimum']}, is {value}"
    if isinstance(value, dict):
        yield from _object_faults(value, rule, at, named)
    if isinstance(value, list) and "items" in rule:
        for index, item in enumerate(value):
            yield from _faults(item, rule["items"], f"{at}[{index}]", named)


def _object_faults(
    value: dict[str, Any], rule: dict[str, Any], at: str, named: dict[str, Any]
) -> Iterator[str]:
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{at} lacks {name!r}"
    properties, others = rule.get("properties", {}), rule.get("additionalProperties", {})
    for name, item in value.items():
        if name in properties:
            yield from _faults(item, properties[name], f"{at}.{name}", named)
        elif others is False:
            yield f"{at} has {name!r}, which the format does not know"
        else:
            yield from _faults(item, others, f"{at}.{name}", named)


def _has_type(value: Any, expected: str | list[str]) -> bool:
    names = [expected] if isinstance(expected, str) else expected
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)
