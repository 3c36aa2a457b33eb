"""Model files: nothing is lost, damage is never accepted, and loading runs nothing.

Resuming is compared bit for bit with not stopping. Damage: every truncation and a flip of every
byte of a small file. Hostile files, whose checksum is right, are made with `sign`.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import durable, files

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
LABELS = np.arange(30) % 3

OPTIMIZERS = {
    "sgd": bp.SGD(0.1),
    "momentum": bp.SGD(0.1, momentum=0.9),
    "nesterov": bp.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "rmsprop": bp.RMSprop(),
    "adagrad": bp.Adagrad(),
    "adam": bp.Adam(1 / 3),
    "adamw": bp.AdamW(),
}


def make(device: str = "reference", **settings: Any) -> bp.Sequential:
    layers = [
        bp.Dense(5, activation=bp.LeakyReLU(0.2), kernel_initializer=bp.RandomNormal(0.3)),
        bp.ELU(0.7),
        bp.Dense(3, use_bias=False),
    ]
    model = bp.Sequential(layers, seed=2**64 - 1)
    settings = {"loss": "softmax_cross_entropy", "metrics": ["accuracy", "mae"], **settings}
    model.compile(device=device, **settings)
    return model


def bits(model: bp.Sequential) -> dict[str, bytes]:
    return {name: p.tobytes() for name, p in model.parameters().items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small model file."""
    model = make()
    model.fit(X, LABELS)
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The smallest model file, for tests that go through every byte."""
    model = bp.Sequential([bp.Dense(1, use_bias=False)], seed=0)
    model.compile("sgd", "mse", device="reference")
    model.build(1)
    model.save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def sign(content: bytes) -> bytes:
    """The same file with a right checksum."""
    at, end = files.DIGEST_AT, files.DIGEST_AT + files.DIGITS
    content = content[:at] + b"0" * files.DIGITS + content[end:]
    return content[:at] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def rewritten(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    """The file with header and description changed by `change(header, description)`, signed."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    described = json.loads(header["__metadata__"]["fastbp"])
    change(header, described)
    header["__metadata__"]["fastbp"] = json.dumps(described)
    text = json.dumps(header, separators=(",", ":")).encode()
    return sign(len(text).to_bytes(8, "little") + text + content[end:])


def refused(path: Path, content: bytes, *fragments: str) -> None:
    path.write_bytes(content)
    with pytest.raises(bp.ModelFileError) as caught:
        bp.load(path, device="reference")
    for fragment in (str(path), *fragments):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(device: str, dtype: str, tmp_path: Path) -> None:
    model = make(device, dtype=dtype, optimizer=bp.Adam(1 / 3, beta_1=0.8))
    model.fit(X, LABELS, epochs=2)
    model.metadata["note"] = "täglich"
    model.save(tmp_path / "m", metadata={"more": "1"})
    again = bp.load(tmp_path / "m", device=device)
    assert bits(again) == bits(model)
    assert again.predict(X).tobytes() == model.predict(X).tobytes()
    for name in ("layers", "seed", "inputs", "outputs", "dtype", "device", "loss", "metrics"):
        assert getattr(again, name) == getattr(model, name)
    assert again.optimizer == model.optimizer
    assert again.epochs_trained == 2
    assert again.metadata == {"note": "täglich", "more": "1"}
    assert again.evaluate(X, LABELS) == model.evaluate(X, LABELS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resuming_equals_not_stopping(device: str, optimizer: str, tmp_path: Path) -> None:
    """Parameters, optimizer state, order of rows: everything goes on where it was, to the bit."""
    whole, parts = (make(device, optimizer=OPTIMIZERS[optimizer]) for _ in range(2))
    history = whole.fit(X, LABELS, epochs=4, batch_size=8).history
    first = parts.fit(X, LABELS, epochs=1, batch_size=8).history
    parts.step(X[:5], LABELS[:5])
    whole = make(device, optimizer=OPTIMIZERS[optimizer])
    whole.fit(X, LABELS, epochs=1, batch_size=8)
    whole.step(X[:5], LABELS[:5])
    parts.save(tmp_path / "m")
    parts = bp.load(tmp_path / "m", device=device)
    rest = parts.fit(X, LABELS, epochs=3, batch_size=8).history
    assert rest == whole.fit(X, LABELS, epochs=3, batch_size=8).history
    assert bits(parts) == bits(whole)
    assert first["loss"][0] == history["loss"][0]


def test_resuming_in_another_process(tmp_path: Path) -> None:
    model = make("cpu", optimizer="adam")
    model.fit(X, LABELS, epochs=2)
    model.save(tmp_path / "m")
    np.savez(tmp_path / "data.npz", x=X, y=LABELS)
    program = (
        "import sys, numpy, fastbp; d = numpy.load(sys.argv[1] + '/data.npz');"
        "m = fastbp.load(sys.argv[1] + '/m'); m.fit(d['x'], d['y'], epochs=2);"
        "m.save(sys.argv[1] + '/m')"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    model.fit(X, LABELS, epochs=2)
    assert bits(bp.load(tmp_path / "m")) == bits(model)


def test_saving_twice_gives_the_same_file(path: Path) -> None:
    content = path.read_bytes()
    bp.load(path, device="reference").save(path)
    assert path.read_bytes() == content


def test_a_model_that_is_not_compiled(tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(2)], seed=1)
    model.build(3)
    model.save(tmp_path / "m")
    again = bp.load(tmp_path / "m")
    assert bits(again) == bits(model)
    with pytest.raises(RuntimeError, match="not compiled"):
        again.fit(np.ones((2, 3)), np.ones((2, 2)))


def test_parameters_that_are_not_finite_survive(tmp_path: Path) -> None:
    model = make()
    model.build(4)
    model.parameters()["0.bias"][:] = [np.nan, np.inf, -np.inf, -0.0, 1e-45]
    model.save(tmp_path / "m")
    assert bits(bp.load(tmp_path / "m", device="reference")) == bits(model)


def test_other_programs_read_it_as_safetensors(path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    model = bp.load(path, device="reference")
    tensors = library.load_file(path)
    assert {name for name in tensors if not name.startswith("optimizer.")} == set(bits(model))
    for name, view in model.parameters().items():
        assert np.array_equal(tensors[name], view)
        assert tensors[name].dtype == view.dtype


def test_layout(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert list(header)[:3] == ["__metadata__", "0.kernel", "0.bias"]
    assert "optimizer.1.2.kernel" in header
    described = json.loads(header["__metadata__"]["fastbp"])
    assert described["format"] == 1
    assert described["training"]["optimizer"]["class"] == "Adam"
    assert described["training"]["steps"] == 1
    assert sign(content) == content


def test_every_truncation_is_refused(small: Path) -> None:
    content = small.read_bytes()
    for length in range(len(content)):
        refused(small, content[:length])
    refused(small, content + b"\0", "checksum")


def test_every_flipped_byte_is_refused(small: Path) -> None:
    content = bytearray(small.read_bytes())
    for position in range(len(content)):
        for flip in (1 << position % 8, 0xFF)[: 1 + (position % 4 == 0)]:
            content[position] ^= flip
            refused(small, bytes(content))
            content[position] ^= flip
    small.write_bytes(content)
    bp.load(small, device="reference")


@pytest.mark.parametrize("length", [0, 90, files.MAX_HEADER + 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_impossible_length_is_refused(path: Path, length: int) -> None:
    refused(path, sign(length.to_bytes(8, "little") + path.read_bytes()[8:]), "header of", "bytes")


def edit(*keys: Any, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Sets one entry of the header, or under "d" of the description; ... deletes it."""

    def change(header: dict[str, Any], described: dict[str, Any]) -> None:
        place: Any = {"h": header, "d": described}
        for key in keys[:-1]:
            place = place[key]
        if value is ...:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value

    return change


def move(name: str, begin: int, end: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return edit("h", name, "data_offsets", value=[begin, end])


HOSTILE = {
    "a hole": move("0.bias", 84, 104),
    "an overlap": move("0.bias", 0, 20),
    "behind the end": move("0.bias", 2**60, 2**60 + 20),
    "negative": move("0.kernel", -80, 0),
    "true is no offset": edit("h", "0.kernel", "data_offsets", value=[False, 80]),
    "shape": edit("h", "0.kernel", "shape", value=[5, 4]),
    "huge shape": edit("h", "0.kernel", "shape", value=[2**62, 2**62]),
    "dtype": edit("h", "0.kernel", "dtype", value="F64"),
    "unknown dtype": edit("h", "0.kernel", "dtype", value="O"),
    "missing tensor": edit("h", "0.bias", value=...),
    "extra tensor": edit(
        "h", "9.bias", value={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    ),
    "extra field": edit("h", "0.bias", "more", value=1),
    "tensor is a list": edit("h", "0.bias", value=[]),
    "metadata is a list": edit("h", "__metadata__", "more", value=[1]),
    "newer format": edit("d", "format", value=2),
    "no format": edit("d", "format", value=...),
    "other network": edit("d", "layers", 2, "units", value=4),
    "huge network": edit("d", "layers", 2, "units", value=2**62),
    "negative units": edit("d", "layers", 2, "units", value=-1),
    "units as text": edit("d", "layers", 2, "units", value="3"),
    "no dense layer": edit("d", "layers", value=[{"class": "Activation", "name": "relu"}]),
    "no layers": edit("d", "layers", value=[]),
    "layers is no list": edit("d", "layers", value={"class": "Dense"}),
    "layer is no object": edit("d", "layers", 0, value=7),
    "unknown layer": edit("d", "layers", 0, "class", value="os.system"),
    "layer class is no text": edit("d", "layers", 0, "class", value=["Dense"]),
    "unknown argument": edit("d", "layers", 0, "shell", value=True),
    "unknown activation": edit("d", "layers", 1, "name", value="lambda"),
    "unknown initializer": edit("d", "layers", 0, "kernel_initializer", "class", value="eval"),
    "an initializer as layer": edit("d", "layers", 1, value={"class": "Zeros"}),
    "bad parameter": edit("d", "layers", 1, "param", value="0.7"),
    "unknown optimizer": edit("d", "training", "optimizer", "class", value="Lion"),
    "other optimizer": edit("d", "training", "optimizer", value={"class": "SGD"}),
    "bad rate": edit("d", "training", "optimizer", "learning_rate", value=-1),
    "unknown loss": edit("d", "training", "loss", "name", value="hinge"),
    "unknown metric": edit("d", "training", "metrics", value=["__import__"]),
    "training is a list": edit("d", "training", value=[1]),
    "untrained": edit("d", "training", value=None),
    "negative steps": edit("d", "training", "steps", value=-1),
    "huge steps": edit("d", "training", "steps", value=2**63),
    "seed": edit("d", "seed", value=2**64),
    "epochs": edit("d", "epochs", value=1.5),
    "inputs": edit("d", "inputs", value=0),
    "model dtype": edit("d", "dtype", value="float16"),
    "dtype is a list": edit("d", "dtype", value=["float32"]),
}


HOSTILE["Flatten behind others"] = lambda header, described: described["layers"].append(
    {"class": "Flatten"}
)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_signed_but_wrong_file_is_refused(path: Path, case: str) -> None:
    refused(path, rewritten(path.read_bytes(), HOSTILE[case]), "is not a model file")


def test_signed_sequences_that_end_before_a_recurrent_layer_are_refused(path: Path) -> None:
    model = bp.Sequential([bp.LSTM(2, return_sequences=True), bp.GRU(2), bp.Dense(1)], seed=0)
    model.build(3)
    model.save(path)
    change = edit("d", "layers", 0, "return_sequences", value=False)
    refused(path, rewritten(path.read_bytes(), change), "is not a model file", "layer 1, GRU")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"}",
        b'},"a":' + b"[" * 100_000,
        b'},"a":NaN}',
        b'},"a":1e400}',
        b'},"a":' + b"9" * 5000 + b"}",
        b'},"__metadata__":{}}',
        b"}}" + b"x",
        b'","fastbp":"{}"}}\xff',
        b',"fastbp":"[]"}}',
        b',"fastbp":"' + b"[" * 100_000 + b'"}}',
        b',"fastbp":"null"}}',
        b',"fastbp":null}}',
        b"}}",
    ],
)
def test_a_signed_file_with_another_header_is_refused(path: Path, text: bytes) -> None:
    header = files.PREFIX + b"0" * files.DIGITS + b'"' + text
    refused(path, sign(len(header).to_bytes(8, "little") + header))


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04\x95", b"PK\x03\x04" * 50, bytes(1000)])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    refused(path, content, "is not a model file written by fastbp")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bp.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        bp.load(tmp_path)
    if Path("/dev/zero").exists():
        with pytest.raises(bp.ModelFileError, match="not a regular file"):
            bp.load("/dev/zero")


def test_names_that_are_folders_or_pipes(tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(1)], seed=0)
    model.build(2)
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        model.save(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="a device or a pipe, not a file"):
        model.save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_loading_executes_and_opens_nothing(path: Path) -> None:
    """Over good, damaged and hostile files no audit event but opening that one file."""
    good = path.read_bytes()
    contents = [good, good[:-1], good[:200], b"", *(rewritten(good, f) for f in HOSTILE.values())]
    bp.load(path, device="reference")  # what is imported on first use is imported now
    seen: list[tuple[str, Any]] = []
    watching = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event.split(".")[0] in (
            "import", "exec", "compile", "pickle", "marshal", "subprocess", "socket", "open", "os",
            "ctypes", "shutil", "tempfile", "code",
        ):  # fmt: skip
            seen.append((event, arguments[0] if arguments else None))

    sys.addaudithook(hook)
    for content in contents:
        path.write_bytes(content)
        watching = True
        try:
            bp.load(path, device="reference")
        except bp.ModelFileError:
            pass
        finally:
            watching = False
    assert {event for event, _ in seen} == {"open"}
    assert {str(name) for _, name in seen} == {str(path)}


def test_package_has_no_unpickler_and_no_eval() -> None:
    import ast

    for source in Path(bp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id]
            wrong = {"pickle", "marshal", "shelve", "eval", "exec", "compile"} & set(names)
            assert not wrong, f"{source} uses {wrong}"


def test_save_replaces_the_file_whole_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call fails, the old file is there with its bytes and nothing beside it."""
    model, content = make(), path.read_bytes()
    model.build(9)
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "chmod"), (Path, "open")):
        with monkeypatch.context() as patch:

            def fail(*arguments: Any, **keywords: Any) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space left"):
                model.save(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    model.save(path)
    assert bp.load(path, device="reference").inputs == 9


def test_save_forces_data_then_name_to_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("sync folder" if is_folder else "sync file")
        sync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    model = make()
    model.build(4)
    model.save(path)
    assert events == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("alone", [False, True])
def test_large_files_are_written_in_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Pieces that end within a chunk, with it and behind it; the checksum is that of the whole."""
    monkeypatch.setattr(durable, "PIECE", 1000)
    rng = np.random.default_rng(0)
    chunks = [rng.bytes(size) for size in (100, 1000, 3, 2500, 897)]
    durable.write_durably(path, chunks, 10, alone=alone)
    whole, digits = b"".join(chunks), hashlib.sha256(b"".join(chunks)).hexdigest().encode()
    assert path.read_bytes() == whole[:10] + digits + whole[74:]


def test_a_background_writer_has_files_of_any_length(path: Path) -> None:
    """Shorter ones and longer ones in the memory of those before; each of its moment."""
    writer = durable.Background()
    for size in (5000, 20, 5100, 90000):
        content = bytearray(b"\1") * size
        writer.finish()
        writer.write(path, [content[:7], memoryview(content)[7:]], 0)
        content[:] = b"\2" * size
        writer.finish()
        assert path.read_bytes()[64:] == b"\1" * (size - 64)


def test_files_are_written_where_there_is_no_thread_to_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    model = make()
    model.build(4)
    model.save(path)
    assert bp.load(path).epochs_trained == 0
    writer = durable.Background()
    writer.write(path, [b"a" * 100], 0)
    writer.finish()
    assert path.read_bytes()[64:] == b"a" * 36
    writer.write(path.parent / "no" / "folder", [b"a" * 100], 0)
    with pytest.raises(FileNotFoundError):
        writer.finish()


def test_a_thread_may_save_when_the_main_one_has_ended(tmp_path: Path) -> None:
    program = (
        "import sys, threading\n"
        "import fastbp as bp\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    model = bp.Sequential([bp.Dense(2)])\n"
        "    model.compile('sgd', 'mse')\n"
        "    keep = bp.callbacks.ModelCheckpoint(sys.argv[1] + '/best', monitor='loss')\n"
        "    model.fit([[1.0, 2.0]], [[1.0, 2.0]], verbose=0, callbacks=keep)\n"
        "    model.save(sys.argv[1] + '/last')\n"
        "threading.Thread(target=work).start()\n"
    )
    machine.in_python(program, str(tmp_path))
    assert [bp.load(tmp_path / name).epochs_trained for name in ("best", "last")] == [1, 1]


def test_save_keeps_links_and_permissions(path: Path) -> None:
    path.chmod(0o640)
    link = path.parent / "latest"
    link.symlink_to(path)
    model = make()
    model.build(4)
    model.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert bp.load(path, device="reference").epochs_trained == 0


@pytest.mark.parametrize(
    ("metadata", "kind", "said"),
    [
        ({"sha256": "x"}, ValueError, "taken by the file format"),
        ({"n": 3}, TypeError, "json.dumps"),
        ({3: "n"}, TypeError, "text by name"),
        ({"n": "x" * (files.MAX_HEADER + 1)}, ValueError, "the limit is"),
    ],
)
def test_bad_metadata(path: Path, metadata: Any, kind: type[Exception], said: str) -> None:
    content = path.read_bytes()
    model = make()
    model.build(4)
    with pytest.raises(kind, match=said):
        model.save(path, metadata=metadata)
    assert path.read_bytes() == content


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    model = make()
    model.build(4)
    with pytest.raises(FileNotFoundError, match=r"there is no such folder: .*missing'"):
        model.save(tmp_path / "missing" / "m")
