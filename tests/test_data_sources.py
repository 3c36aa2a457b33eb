"""Where fit's batches may come from: memmaps, sparse rows, frames, iterators; augmentation.

Whatever the source, the bits are those of the same rows as one array.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp


def make(device: str = "cpu", **settings: Any) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(6, activation="relu"), bp.Dense(3)], seed=5)
    settings = {"loss": "softmax_cross_entropy", "metrics": ["accuracy"], **settings}
    model.compile(bp.Adam(0.02), device=device, **settings)
    return model


def data(rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 4)).round(2)
    x[rng.random((rows, 4)) < 0.5] = 0
    return x, (x @ rng.normal(size=(4, 3))).argmax(axis=1)


def bits(model: bp.Sequential) -> list[bytes]:
    return [p.tobytes() for p in model.parameters().values()]


def memmap(folder: Path, x: np.ndarray, dtype: str) -> np.memmap:
    file = np.memmap(folder / "x.bin", dtype, "w+", shape=x.shape)
    file[:] = x
    file.flush()
    return np.memmap(folder / "x.bin", dtype, "r", shape=x.shape)


def source(kind: str, folder: Path, x: np.ndarray) -> Any:
    if kind.startswith("memmap"):
        return memmap(folder, x, kind.split()[1])
    if kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(x, columns=list("abcd"))
    if kind == "polars":
        return pytest.importorskip("polars").DataFrame(x, schema=list("abcd"))
    scipy = pytest.importorskip("scipy.sparse")
    return {"csr": scipy.csr_matrix, "coo": scipy.coo_array, "csc": scipy.csc_array}[kind](x)


KINDS = ["memmap float32", "memmap float64", "csr", "coo", "csc", "pandas", "polars"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_bits_of_one_array(device: str, kind: str, shuffle: bool, tmp_path: Path) -> None:
    x, y = data()
    given = source(kind, tmp_path, x)
    settings: Any = {
        "epochs": 3,
        "batch_size": 16,
        "shuffle": shuffle,
        "validation_split": 0.2,
        "stratify": shuffle,
        "gradient_norms": True,
    }
    one, two = make(device, metrics=["accuracy", "f1"]), make(device, metrics=["accuracy", "f1"])
    expected, history = one.fit(x, y, **settings), two.fit(given, y, **settings)
    assert bits(one) == bits(two)
    for name, values in expected.history.items():
        assert history.history[name] == pytest.approx(values, rel=1e-6), name
    assert (two.predict(given) == one.predict(x)).all()
    assert two.evaluate(given, y) == pytest.approx(one.evaluate(x, y), rel=1e-6)
    assert two.evaluate(given, y, batch_size=7) == pytest.approx(one.evaluate(x, y), rel=1e-6)


MEMORY = """
import resource, sys
import numpy as np
import fastbp as bp
rows, columns = 200_000, 100
x = np.memmap({path!r}, "uint8", "r", shape=(rows, columns))
y = np.zeros(rows, np.int64)
model = bp.Sequential([bp.Dense(3)], seed=0)
model.compile("sgd", "softmax_cross_entropy")
model.fit(x[:4096], y[:4096], batch_size=4096)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.fit(x, y, batch_size=4096, validation_split=0.2)
model.evaluate(x, y)
model.predict(x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_memmap_is_never_copied_as_a_whole(tmp_path: Path) -> None:
    """20 MB of uint8, of which the map itself may be resident; as float32 it would be 80 MB."""
    path = tmp_path / "x.bin"
    np.random.default_rng(0).integers(0, 256, 20_000_000, np.uint8).tofile(path)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(path=str(path))],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert int(done.stdout) < 45_000  # KiB


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool"])
def test_large_integers_of_other_layouts_are_converted_batch_by_batch(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bits of the rows in floats; smaller ones are converted once."""
    x = np.random.default_rng(3).integers(0, 2 if kind == "bool" else 200, (120, 4)).astype(kind)
    x = np.asfortranarray(x)  # which the engine does not read
    y = np.arange(120) % 3
    whole, lazy = make(metrics=["accuracy", "f1"]), make(metrics=["accuracy", "f1"])
    assert not whole._is_lazy(x)
    expected = whole.fit(x, y, epochs=2, validation_split=0.2)
    monkeypatch.setattr("fastbp.lazy.LARGE_COPY", x.size * 4)
    assert lazy._is_lazy(x)
    assert not lazy._is_lazy(x[:-1]) and not lazy._is_lazy(x.astype(np.float64))
    history = lazy.fit(x, y, epochs=2, validation_split=0.2)
    assert bits(lazy) == bits(whole)
    assert history.to_dict() == expected.to_dict()
    assert (lazy.predict(x) == whole.predict(x.astype(np.float32))).all()
    scores = whole.evaluate(x.astype(np.float32), y)
    assert lazy.evaluate(x, y) == pytest.approx(scores, rel=1e-12)


class HandedOver:
    """An array that other libraries get by DLPack alone."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self._array, self._device = array, device

    def __dlpack__(self, **arguments: Any) -> Any:
        if self._device != 1:
            raise BufferError("it lies on another device")
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0


def test_arrays_by_dlpack_alone() -> None:
    x, y = data()
    whole, model = make(), make()
    whole.fit(x, y, epochs=2)
    model.fit(HandedOver(x), HandedOver(y), epochs=2)
    assert bits(model) == bits(whole)
    assert (model.predict(HandedOver(x)) == whole.predict(x)).all()
    with pytest.raises(TypeError, match=r"X lies on a GPU .* copy it, for example with X.get\(\)"):
        model.predict(HandedOver(x, device=2))
    with pytest.raises(TypeError, match=r"X does not hand over its numbers by DLPack: .*device"):
        model.predict(HandedOver(x, device=7))


def test_nan_in_a_memmap_names_its_row(tmp_path: Path) -> None:
    x, y = data()
    x[37, 2] = np.nan
    model = make()
    with pytest.raises(ValueError, match=r"X has .*nan.* at row 37, column 2"):
        model.fit(memmap(tmp_path, x, "float64"), y, batch_size=8)
    assert np.isfinite(model.predict(x[:37])).all()
    assert model.history is not None
    assert model.history.stop_reason == "ValueError"


def test_nan_in_sparse_rows_is_found_at_once() -> None:
    scipy = pytest.importorskip("scipy.sparse")
    x, y = data()
    x[37, 2] = np.nan
    model = make()
    with pytest.raises(ValueError, match="X has NaN at row 37, column 2"):
        model.fit(scipy.csr_array(x), y)
    assert model.inputs is None
    with pytest.raises(ValueError, match="5 columns, but the network takes 4"):
        model.build(4)
        model.fit(scipy.csr_array(np.ones((50, 5))), y)


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_frames_name_columns(module: str) -> None:
    frames = pytest.importorskip(module)
    x, y = data()
    columns: dict[str, Any] = {"width": x[:, 0].tolist(), "age": [*range(50)]}
    columns["age"][31] = None
    with pytest.raises(ValueError, match=r"NaN at row 31, column 1 \('age'\)"):
        make().fit(frames.DataFrame(columns), y)
    columns["age"] = ["old"] * 50
    with pytest.raises(TypeError, match="X has no numbers in column 'age'"):
        make().fit(frames.DataFrame(columns), y)
    mixed = {"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "c": [True, False, True]}
    model = make()
    model.build(3)
    expected = model.predict(np.array([[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1]]))
    assert (model.predict(frames.DataFrame(mixed)) == expected).all()


def test_a_frame_with_a_name_twice() -> None:
    """pandas allows it, and finds both columns by the name: they are taken once, in their order."""
    x, y = data()
    frame = pytest.importorskip("pandas").DataFrame(x, columns=list("abaa"))
    model = make()
    model.fit(frame, y)
    assert model.inputs == 4
    np.testing.assert_array_equal(model.predict(frame), model.predict(x))
    with pytest.raises(ValueError, match=r"row 3, column 2 \('a'\)"):
        model.evaluate(frame.mask(np.arange(len(x) * 4).reshape(-1, 4) == 14), y)


def batches(count: int, size: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = data(count * size)
    return [(x[at : at + size], y[at : at + size]) for at in range(0, count * size, size)]


@pytest.mark.parametrize("each_epoch", [True, False])
def test_batches_of_an_iterable(device: str, each_epoch: bool) -> None:
    x, y = data(60)
    one, two = make(device), make(device)
    steps = None if each_epoch else 3
    expected = one.fit(x, y, epochs=4, batch_size=10, shuffle=False)
    history = two.fit(batches(6), epochs=4 if each_epoch else 8, steps_per_epoch=steps)
    assert bits(one) == bits(two)
    if each_epoch:
        assert history.history == expected.history
        assert history.params["steps"] == 6


def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number in range(10**6):
        rng = np.random.default_rng(number)
        x = rng.normal(size=(5 + number % 3, 4))
        yield x, x.argmax(axis=1) % 3


class Numbered:
    """Batches by their numbers, as data sets of other libraries give them."""

    def __init__(self, said: int, given: int) -> None:
        self.said, self.given = said, batches(given)

    def __len__(self) -> int:
        return self.said

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.given[number]


class Lazy:
    """As polars' LazyFrame."""

    def collect(self) -> None: ...


def test_batches_by_number() -> None:
    one, two = make(), make()
    for model, source in ((one, batches(3)), (two, Numbered(3, 3))):
        model.fit(source, epochs=3)
    assert bits(one) == bits(two)


def test_a_generator_resumes_exactly(tmp_path: Path) -> None:
    def stop(batch: int, logs: Any) -> None:
        history = stopped.history
        stopped.stop_training = history is not None and history.epoch == [0, 1] and batch == 2

    settings: Any = {"epochs": 4, "steps_per_epoch": 5}
    whole, stopped, model = make(), make(), make()
    valid = data()
    expected = whole.fit(endless(), validation_data=valid, **settings)
    watch = bp.LambdaCallback(on_batch_end=stop)
    stopped.fit(endless(), validation_data=valid, callbacks=watch, **settings)
    stopped.save(tmp_path / "stopped")
    settings.update(callbacks=bp.LambdaCallback(), resume=tmp_path / "stopped")
    history = model.fit(endless(), validation_data=valid, **settings)
    assert bits(model) == bits(whole)
    assert history.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: m.fit(endless()), ValueError, "give steps_per_epoch"),
        (lambda m: m.fit(iter(batches(2)), steps_per_epoch=3), ValueError, "ended after 2"),
        (lambda m: m.fit([data()[0]]), TypeError, r"must give pairs \(x, y\).* fit\(X, y\)"),
        (lambda m: m.fit(Numbered(3, 2)), ValueError, "it has 3 batches, but ended after 2"),
        (lambda m: m.fit(data()[0]), TypeError, "got None: it was not given"),
        (lambda m: m.fit(Lazy(), [0]), TypeError, r"a Lazy, not computed yet: pass X.collect\(\)"),
        (lambda m: m.fit(batches(2), validation_split=0.5), ValueError, "needs rows"),
        (lambda m: m.fit(*data(), steps_per_epoch=2), ValueError, "X has rows"),
        (lambda m: m.fit([]), ValueError, "X has no batches"),
        (lambda m: m.fit(data()[0]), TypeError, "y must hold real numbers"),
        (lambda m: m.fit(*data(), augment=3), TypeError, "augment must be a function"),
        (
            lambda m: m.fit(*data(), augment=lambda x, rng: x[:3]),
            ValueError,
            "returned 3 rows for 32",
        ),
        (lambda m: m.fit(*data(), augment=lambda x, rng: x * np.nan), ValueError, "first$"),
    ],
)
def test_wrong_sources(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(make())


def noisy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x += rng.normal(size=x.shape).astype(x.dtype)
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_predict_lets_gaps_and_no_rows_through(device: str, kind: str, tmp_path: Path) -> None:
    x, y = data()
    model = make(device=device)
    model.fit(x, y)
    gaps = x.copy()
    gaps[7, 1], gaps[9, 3] = np.nan, np.inf
    found = model.predict(source(kind, tmp_path, gaps))
    np.testing.assert_array_equal(found, model.predict(gaps))
    assert np.isnan(found[7]).all() and np.isfinite(np.delete(found, [7, 9], axis=0)).all()
    if not kind.startswith("memmap"):  # which has no such file
        assert model.predict(source(kind, tmp_path, x[:0])).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float16"])
def test_predict_of_no_rows(device: str, dtype: str) -> None:
    model = make(device=device)
    model.build(4)
    assert model.predict(np.zeros((0, 4), dtype)).shape == (0, 3)


def test_augmentation_draws_by_seed_epoch_and_batch(tmp_path: Path) -> None:
    x, y = data()
    kept = x.copy()
    whole, again, plain, model = make(), make(), make(), make()
    expected = whole.fit(x, y, epochs=4, batch_size=16, augment=noisy)
    again.fit(x, y, epochs=1, batch_size=16, augment=noisy)
    again.fit(x, y, epochs=3, batch_size=16, augment=noisy)
    plain.fit(x, y, epochs=4, batch_size=16, augment=lambda x, rng: x)
    assert (x == kept).all()
    assert bits(whole) == bits(again)
    assert bits(whole) != bits(plain)
    other = make()
    other.fit(x, y, epochs=4, batch_size=16)
    assert bits(plain) == bits(other)

    def save(batch: int, logs: Any) -> None:
        if whole.history is None or model.history is None:
            return
        if model.history.epoch == [0] and batch == 1:
            model.save(tmp_path / "stopped")

    watch = bp.LambdaCallback(on_batch_end=save)
    model.fit(x, y, epochs=4, batch_size=16, augment=noisy, callbacks=watch)
    resumed = make()
    settings: Any = {"callbacks": bp.LambdaCallback(), "resume": tmp_path / "stopped"}
    history = resumed.fit(x, y, epochs=4, batch_size=16, augment=noisy, **settings)
    assert bits(resumed) == bits(whole)
    assert history.to_dict() == expected.to_dict()
