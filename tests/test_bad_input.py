"""Wrong input: an error of the right type that says what came, what was expected and what to do,
and a model that is as it was.

Each row of a table is one wrong call; `refused` checks its message and that nothing changed:
parameters, optimizer state, counters, history, and whether the model is built.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp as bp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype(np.float32)
Y = RNG.normal(size=(20, 3)).astype(np.float32)
LABELS = np.arange(20) % 3


def make(device: str, loss: str = "mse", units: int = 3, built: bool = True) -> bp.Sequential:
    last = "sigmoid" if loss == "binary_cross_entropy" else None
    layers = [bp.Dense(5, activation="relu"), bp.Dense(units, activation=last)]
    model = bp.Sequential(layers, seed=0)
    model.compile(loss=loss, device=device, metrics=["accuracy"])
    if built:
        target = {"softmax_cross_entropy": LABELS, "mse": Y[:, :units]}.get(
            loss, np.zeros((20, units))
        )
        model.fit(X, target)
    return model


def state(model: bp.Sequential) -> list[Any]:
    """Everything that a failed call must leave alone."""
    engine = model._engine
    arrays = [] if engine is None else [engine.parameters, *engine.optimizer_state]
    return [
        model.inputs,
        model.epochs_trained,
        None if engine is None else engine.steps,
        copy.deepcopy(vars(model.history)) if model.history else None,
        model._compiled,
        model.layers,
        dict(model.metadata),
        [array.tobytes() for array in arrays],
    ]


def refused(
    model: bp.Sequential, call: Callable[[], object], kind: type[Exception], *fragments: str
) -> None:
    before = state(model)
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert state(model) == before


def with_value(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


class Frame:
    """As much of a DataFrame as matters: columns with names."""

    columns = ("age", "height", "weight", "dose")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return with_value(X, (3, 2), np.nan)


class Sparse:
    def toarray(self) -> np.ndarray:
        return X


HUGE = with_value(X.astype(np.float64), (2, 1), 1e300)

BAD_X: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "1-D row": (X[0], ValueError, ("(rows, 4)", "(4,)", "X[None, :]")),
    "1-D": (X[:, 0], ValueError, ("X must have shape (rows, 4)", "(20,)")),
    "0-D": (1.0, ValueError, ("(rows, 4)", "got shape ()")),
    "3-D": (X[:, :, None], ValueError, ("(20, 4, 1)", "X.reshape(len(X), -1)")),
    "too narrow": (X[:, :3], ValueError, ("3 columns", "takes 4", "(20, 3)")),
    "no columns": (X[:, :0], ValueError, ("0 columns", "takes 4")),
    "complex": (X.astype(complex), TypeError, ("real numbers", "complex128", ".real")),
    "text": (X.astype(str), TypeError, ("real numbers", "<U", "return_inverse")),
    "object": (X.astype(object), TypeError, ("dtype object", ".astype(float)")),
    "None inside": ([[1.0, None, 2.0, 3.0]], TypeError, ("dtype object", "None", "gaps")),
    "dates": (X.astype("datetime64[s]"), TypeError, ("datetime64",)),
    "ragged": ([[1, 2, 3, 4], [5]], ValueError, ("differ in length",)),
    "arrays in one": (np.array([np.ones(2), np.ones(3)], object), TypeError, ("fastbp.Sequences",)),
    "sparse": (Sparse(), TypeError, ("sparse", "X.toarray()")),
    "masked": (np.ma.masked_less(X, 0), TypeError, ("masked array", "filled")),
    "nothing": (None, TypeError, ("got None",)),
    "a word": ("data.csv", TypeError, ("real numbers", "<U8")),
}
NOT_FINITE: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "NaN": (with_value(X, (7, 2), np.nan), ValueError, ("X has NaN", "row 7", "(X).all(axis=1)")),
    "inf": (with_value(X, (0, 0), -np.inf), ValueError, ("infinity", "row 0", "column 0", "drop")),
    "named": (Frame(), ValueError, ("NaN", "row 3", "column 2 ('weight')")),
    "too large": (
        HUGE,
        ValueError,
        ("X has 1e+300 at row 2, column 1", "float32 cannot hold", "float64"),
    ),
    "empty": (X[:0], ValueError, ("no rows", "(0, 4)")),
}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("case", [*BAD_X, *NOT_FINITE])
def test_bad_features(device: str, case: str, built: bool) -> None:
    x, kind, fragments = {**BAD_X, **NOT_FINITE}[case]
    model = make(device)
    if not built:
        model = make(device, built=False)
        fragments = () if "4" in "".join(fragments) else fragments
    calls = {
        "fit": lambda: model.fit(x, Y),
        "step": lambda: model.step(x, Y),
        "gradients": lambda: model.gradients(x, Y),
        "input_gradient": lambda: model.input_gradient(x, Y),
        "evaluate": lambda: model.evaluate(x, Y),
    }
    if case in BAD_X:
        calls["predict"] = lambda: model.predict(x)
    for call in calls.values():
        if built or case not in ("too narrow",):
            refused(model, call, kind, *fragments)


def test_weights_that_are_refused_do_not_build_the_model(device: str) -> None:
    """It still takes data of any number of columns, an array of another dtype (LazyRows) too."""
    model = make(device, built=False)
    for x, y in ((X, Y), (X.astype(np.float16), Y)):
        for call in (model.step, model.gradients, model.input_gradient, model.evaluate):
            refused(model, lambda c=call, x=x, y=y: c(x, y, sample_weight=-np.ones(20)), ValueError)
    model.step(X[:, :2], Y)


def test_validation_data_is_named(device: str) -> None:
    model = make(device)
    bad = with_value(X, (1, 1), np.nan)
    for data, kind, fragments in (
        ((bad, Y), ValueError, ("validation_data[0] has NaN at row 1, column 1",)),
        ((X, Y[:5]), ValueError, ("validation_data[0] has 20 rows", "validation_data[1] has 5")),
        ((X[:, :2], Y), ValueError, ("validation_data[0]", "takes 4")),
        ((X,), TypeError, ("(X, y) or (X, y, sample_weight)",)),
        (X, TypeError, ("(X, y) or (X, y, sample_weight)",)),
    ):
        refused(model, lambda data=data: model.fit(X, Y, validation_data=data), kind, *fragments)  # type: ignore[misc]
    new = make(device, built=False)
    refused(new, lambda: new.fit(X, Y, validation_data=(X[:, :2], Y)), ValueError, "takes 4")


BAD_TARGETS: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "too few": (Y[:19], ValueError, ("X has 20 rows, but y has 19",)),
    "one number": (3.0, ValueError, ("X has 20 rows", "got shape ()")),
    "too narrow": (Y[:, :2], ValueError, ("(20, 3)", "3 outputs", "got shape (20, 2)")),
    "labels": (LABELS, ValueError, ("(20, 3)", "(20,)", "softmax_cross_entropy")),
    "NaN": (with_value(Y, (4, 1), np.nan), ValueError, ("y has NaN at row 4, column 1",)),
    "text": (np.full((20, 3), "a"), TypeError, ("y must hold real numbers", "return_inverse")),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(device: str, case: str) -> None:
    y, kind, fragments = BAD_TARGETS[case]
    for model in (make(device), make(device, built=False)):
        for call in (model.fit, model.step, model.gradients, model.input_gradient, model.evaluate):
            refused(model, lambda call=call: call(X, y), kind, *fragments)  # type: ignore[misc]


BAD_LABELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "too large": (with_value(LABELS, 6, 3), ("y[6] is 3", "0 to 2", "3 outputs")),
    "negative": (with_value(LABELS, 0, -1), ("y[0] is -1", "0 to 2")),
    "huge": (with_value(LABELS, 9, 2**31), ("y[9] is 2147483648",)),
    "lowest": (with_value(LABELS, 9, -(2**63)), ("y[9] is -9223372036854775808",)),
    "unsigned": (
        with_value(LABELS.astype(np.uint64), 1, 2**64 - 1),
        ("y[1] is 18446744073709551615",),
    ),
    "small integers": (with_value(LABELS.astype(np.int8), 2, 100), ("y[2] is 100",)),
    "fraction": (with_value(LABELS.astype(float), 3, 1.5), ("y[3] is 1.5", "integers")),
    "NaN": (with_value(LABELS.astype(float), 3, np.nan), ("y[3] is nan", "integers")),
    "infinite": (with_value(LABELS.astype(float), 3, np.inf), ("y[3] is inf", "integers")),
    "in a column": (with_value(LABELS, 6, 3)[:, None], ("y[6] is 3",)),
    "shape": (
        np.zeros((20, 2)),
        ("(20, 3) (one-hot or soft rows) or (20,) (class numbers)", "(20, 2)"),
    ),
    "negative weights": (
        with_value(np.eye(3)[LABELS], (1, 1), -0.5),
        ("must not be negative", "-0.5"),
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(device: str, case: str) -> None:
    y, fragments = BAD_LABELS[case]
    model = make(device, "softmax_cross_entropy")
    for call in (model.fit, model.step, model.gradients, model.input_gradient, model.evaluate):
        refused(model, lambda call=call: call(X, y), ValueError, *fragments)  # type: ignore[misc]


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_targets_outside_the_unit_interval(device: str, loss: str) -> None:
    model = make(device, loss, units=1)
    y = np.linspace(-1.5, 2.25, 20)
    fragments = ("y must lie in [0, 1]", loss, "from -1.5 to 2.25", "'mse'")
    for call in (model.fit, model.step, model.gradients, model.evaluate):
        refused(model, lambda call=call: call(X, y), ValueError, *fragments)  # type: ignore[misc]
    refused(model, lambda: model.fit(X, 2 * LABELS), ValueError, "from 0 to 4")


@pytest.mark.parametrize(
    "call",
    [
        lambda size: bp.Dense(size),
        lambda size: bp.GRU(3, truncate=size),
        lambda size: bp.Sequential([bp.Dense(1)]).build(size),
        lambda size: bp.Adam(gradient_accumulation_steps=size),
        lambda size: bp.LBFGS(history_size=size),
        lambda size: bp.CosineDecay(0.1, 5, warmup_steps=size),
        lambda size: bp.WarmUp(0.1, size),
        lambda size: bp.EarlyStopping(patience=size),
        lambda size: bp.set_num_threads(size),
    ],
)
@pytest.mark.parametrize("size", [2**63, 10**30])
def test_integers_beyond_the_engines(call: Any, size: int) -> None:
    with pytest.raises(ValueError, match=f"(must be|got) .*{size}"):
        call(size)


def test_gates_that_are_too_wide_together() -> None:
    for layer in (bp.LSTM(2**60 - 1), bp.Bidirectional(bp.GRU(2**60 - 1))):
        with pytest.raises(MemoryError):
            bp.Sequential([layer, bp.Dense(1)]).build(3)
    with pytest.raises(ValueError, match="units must be from 1 to"):
        bp.LSTM(2**60)


def test_more_threads_than_there_can_be() -> None:
    for threads in (1025, 2**31, 2**40):
        with pytest.raises(ValueError, match="1024"):
            bp.set_num_threads(threads)


def test_boundaries_that_are_no_list() -> None:
    for given in ((5, [0.1, 0.2]), ([5], 0.1), ("5", [0.1, 0.2])):
        with pytest.raises(TypeError, match="must be a list of numbers; got"):
            bp.PiecewiseConstant(*given)


BAD_FIT: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "epochs": ({"epochs": -1}, ValueError, ("epochs", "0", "-1")),
    "epochs kind": ({"epochs": 2.5}, TypeError, ("epochs must be an integer", "2.5")),
    "epochs bool": ({"epochs": True}, TypeError, ("epochs must be an integer", "True")),
    "batch": ({"batch_size": 0}, ValueError, ("batch_size must be at least 1; got 0",)),
    "batch kind": ({"batch_size": "32"}, TypeError, ("batch_size must be an integer", "'32'")),
    "batch None": ({"batch_size": None}, TypeError, ("batch_size must be an integer",)),
    "split": ({"validation_split": 1.0}, ValueError, ("validation_split", "[0, 1)", "1.0")),
    "negative split": ({"validation_split": -0.1}, ValueError, ("[0, 1)", "-0.1")),
    "split NaN": ({"validation_split": float("nan")}, ValueError, ("validation_split", "nan")),
    "split of little": ({"validation_split": 0.99}, ValueError, ("0.99 of 20 rows", "leaves 0")),
    "both": ({"validation_split": 0.5, "validation_data": (X, Y)}, ValueError, ("not both",)),
    "shuffle": ({"shuffle": "yes"}, TypeError, ("shuffle must be True or False", "'yes'")),
    "verbose": ({"verbose": -1}, ValueError, ("verbose must be at least 0",)),
    "verbose word": ({"verbose": "loud"}, ValueError, ("'auto'", "'loud'")),
    "callback": ({"callbacks": [print]}, TypeError, ("Callback objects", "print")),
    "callbacks": ({"callbacks": 3}, TypeError, ("list of Callback objects", "3")),
    "unknown": ({"nb_epoch": 3}, TypeError, ("nb_epoch",)),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_bad_fit_arguments(device: str, case: str) -> None:
    arguments, kind, fragments = BAD_FIT[case]
    model = make(device)
    refused(model, lambda: model.fit(X, Y, **arguments), kind, *fragments)


BAD_COMPILE: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "no loss": ({"loss": None}, TypeError, ("compile needs a loss",)),
    "loss": ({"loss": "msee"}, ValueError, ("unknown loss 'msee'", "did you mean 'mse'?", "huber")),
    "loss kind": ({"loss": 3}, TypeError, ("loss must be one of", "int 3")),
    "Keras' cce": (
        {"loss": "categorical_crossentropy"},
        ValueError,
        ("use 'softmax_cross_entropy'", "logits"),
    ),
    "Keras' sparse": (
        {"loss": "sparse_categorical_crossentropy"},
        ValueError,
        ("use 'softmax_cross_entropy'", "class numbers"),
    ),
    "Keras' bce": (
        {"loss": "binary_crossentropy"},
        ValueError,
        ("use 'binary_cross_entropy_with_logits'", "sigmoid"),
    ),
    "Keras' mse": ({"loss": "mean_squared_error"}, ValueError, ("use 'mse'",)),
    "optimizer": ({"optimizer": "adamm"}, ValueError, ("unknown optimizer", "'adam'")),
    "optimizer kind": ({"optimizer": 0.1}, TypeError, ("optimizer must be one of", "0.1")),
    "optimizer class": ({"optimizer": bp.Adam}, TypeError, ("write Adam()",)),
    "momentum": ({"optimizer": "momentum"}, ValueError, ("use SGD(momentum=0.9)",)),
    "metric": ({"metrics": ["acc"]}, ValueError, ("unknown metric 'acc'", "use 'accuracy'")),
    "metric twice": ({"metrics": ["mse", "mse"]}, ValueError, ("listed twice",)),
    "metrics string": ({"metrics": "accuracy"}, TypeError, ("metrics=['accuracy']",)),
    "metrics kind": ({"metrics": 3}, TypeError, ("list of names", "3")),
    "device": ({"device": "gpu"}, ValueError, ("unknown device 'gpu'", "'cpu'", "'reference'")),
    "device kind": ({"device": 0}, TypeError, ("device must be a string",)),
    "dtype": ({"dtype": "int8"}, ValueError, ("'bfloat16', 'float16' or 'tf32'", "int8")),
    "dtype kind": ({"dtype": 32}, ValueError, ("'bfloat16', 'float16' or 'tf32'", "32")),
}


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("case", BAD_COMPILE)
def test_bad_compile_arguments(device: str, case: str, built: bool) -> None:
    arguments, kind, fragments = BAD_COMPILE[case]
    model = make(device, built=built)
    refused(model, lambda: model.compile(**{"loss": "mse", **arguments}), kind, *fragments)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:11"])
def test_cuda_is_refused_with_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBP_CUDA_LIBRARY", "/missing.so")
    model = make("cpu")
    before = state(model)
    with pytest.raises(bp.DeviceNotAvailableError, match=f"'{name}' was asked for") as caught:
        model.compile(loss="mse", device=name)
    assert caught.value.reason == "bad_library"
    assert isinstance(caught.value, RuntimeError)
    assert "device='auto' or 'cpu'" in str(caught.value)
    assert state(model) == before


def test_the_device_variable_counts_for_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBP_DEVICE", "reference")
    model = bp.Sequential([bp.Dense(1)])
    model.compile(loss="mse")
    assert model.device == "reference"
    model.compile(loss="mse", device="cpu")
    assert model.device == "cpu"
    monkeypatch.setenv("FASTBP_DEVICE", "cuda")
    with pytest.raises(bp.DeviceNotAvailableError, match="FASTBP_DEVICE"):
        model.compile(loss="mse")
    monkeypatch.setenv("FASTBP_DEVICE", "tpu")
    with pytest.raises(ValueError, match="FASTBP_DEVICE"):
        model.compile(loss="mse")
    found = bp.info()["environment"]["FASTBP_DEVICE"]
    assert found["value"] == "tpu"
    assert "unknown device 'tpu'" in found["problem"]


BAD_LAYERS: dict[str, tuple[Callable[[], object], type[Exception], tuple[str, ...]]] = {
    "no units": (lambda: bp.Dense(0), ValueError, ("units must be at least 1; got 0",)),
    "negative": (lambda: bp.Dense(-3), ValueError, ("units must be at least 1; got -3",)),
    "float": (lambda: bp.Dense(3.0), TypeError, ("units must be an integer", "3.0")),  # type: ignore[arg-type]
    "softmax, the layer": (
        lambda: bp.Dense(3, activation=bp.Softmax()),
        ValueError,
        ("a layer of its own", "softmax_cross_entropy"),
    ),
    "softmax": (
        lambda: bp.Dense(3, activation="softmax"),
        ValueError,
        ("logits", "softmax_cross_entropy", "predict_proba"),
    ),
    "linear": (lambda: bp.Dense(3, "linear"), ValueError, ("use 'identity'",)),
    "swish": (lambda: bp.Activation("swish"), ValueError, ("use 'silu'",)),
    "typo": (lambda: bp.Activation("rellu"), ValueError, ("did you mean 'relu'?", "gelu_tanh")),
    "kind": (lambda: bp.Dense(3, activation=7), TypeError, ("activation must be one of", "7")),  # type: ignore[arg-type]
    "function": (lambda: bp.Dense(3, activation=np.tanh), TypeError, ("activation",)),  # type: ignore[arg-type]
    "parameter": (lambda: bp.Activation("relu", 0.1), ValueError, ("'relu' has no parameter",)),
    "slope": (lambda: bp.LeakyReLU(-0.1), ValueError, ("negative_slope", "at least 0", "-0.1")),
    "alpha": (lambda: bp.ELU(float("nan")), ValueError, ("alpha", "nan")),
    "approximate": (lambda: bp.GELU("erf"), ValueError, ("approximate", "'tanh'")),
    "bias": (lambda: bp.Dense(3, use_bias=1), TypeError, ("use_bias must be True or False",)),  # type: ignore[arg-type]
    "initializer": (
        lambda: bp.Dense(3, kernel_initializer="xavier_uniform"),
        ValueError,
        ("unknown kernel_initializer", "use 'glorot_uniform'"),
    ),
    "initializer class": (
        lambda: bp.Dense(3, bias_initializer=bp.HeNormal),  # type: ignore[arg-type]
        TypeError,
        ("bias_initializer", "HeNormal()"),
    ),
    "stddev": (lambda: bp.RandomNormal(-1), ValueError, ("stddev", "at least 0")),
    "interval": (lambda: bp.RandomUniform(1, -1), ValueError, ("low must not exceed high",)),
    "no list": (lambda: bp.Sequential(bp.Dense(1)), TypeError, ("write Sequential([...])",)),  # type: ignore[arg-type]
    "not layers": (lambda: bp.Sequential([5]), TypeError, ("layer objects", "int 5")),  # type: ignore[list-item]
    "a class": (lambda: bp.Sequential([bp.ReLU]), TypeError, ("with parentheses",)),  # type: ignore[list-item]
    "twice": (lambda: bp.Sequential([bp.Dense(2)] * 2), ValueError, ("appears twice",)),
    "seed": (lambda: bp.Sequential(seed=-1), ValueError, ("seed", "-1")),
    "large seed": (lambda: bp.Sequential(seed=2**64), ValueError, ("seed", "18446744073709551615")),
    "seed kind": (lambda: bp.Sequential(seed=1.5), TypeError, ("seed must be an integer",)),  # type: ignore[arg-type]
    "learning rate": (lambda: bp.Adam(-0.1), ValueError, ("learning_rate", "at least 0", "-0.1")),
    "rate kind": (lambda: bp.Adam("fast"), TypeError, ("learning_rate must be a number",)),  # type: ignore[arg-type]
    "beta": (lambda: bp.Adam(beta_2=1.0), ValueError, ("beta_2", "[0, 1)", "1.0")),
    "epsilon": (lambda: bp.RMSprop(epsilon=0), ValueError, ("epsilon", "above 0")),
    "nesterov": (lambda: bp.SGD(nesterov=True), ValueError, ("needs momentum above 0",)),
    "decay": (lambda: bp.AdamW(weight_decay=np.inf), ValueError, ("weight_decay", "inf")),
    "loss parameter": (lambda: bp.Loss("mse", 1.0), ValueError, ("'mse' has no parameter",)),
    "delta": (lambda: bp.Loss("huber", 0.0), ValueError, ("above 0",)),
    "threads": (lambda: bp.set_num_threads(0), ValueError, ("n must be at least 1; got 0",)),
    "threads kind": (lambda: bp.set_num_threads("all"), TypeError, ("n must be an integer",)),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_bad_descriptions(case: str) -> None:
    call, kind, fragments = BAD_LAYERS[case]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_one_output_is_no_softmax() -> None:
    model = bp.Sequential([bp.Dense(1)])
    refused(
        model,
        lambda: model.compile(loss="softmax_cross_entropy"),
        ValueError,
        "at least 2",
        "binary_cross_entropy_with_logits",
    )


def test_a_network_needs_a_dense_layer() -> None:
    model = bp.Sequential([bp.ReLU()])
    for call in (
        lambda: model.compile(loss="mse"),
        lambda: model.build(3),
        lambda: model.predict(X),
    ):
        refused(model, call, ValueError, "at least one Dense layer")
    empty = bp.Sequential()
    refused(empty, lambda: empty.compile(loss="mse"), ValueError, "at least one Dense layer")


def test_calls_out_of_order(device: str) -> None:
    model = bp.Sequential([bp.Dense(3)], seed=0)
    for call in (model.fit, model.step, model.gradients, model.input_gradient, model.evaluate):
        refused(model, lambda call=call: call(X, Y), RuntimeError, "not compiled", "model.compile(")  # type: ignore[misc]
    refused(model, lambda: model.predict_proba(X), RuntimeError, "not compiled")
    refused(model, model.parameters, RuntimeError, "no parameters yet", "model.build(")
    refused(model, lambda: model.set_parameters({}), RuntimeError, "no parameters yet")
    refused(model, lambda: model.save("never"), RuntimeError, "no parameters yet")
    built = make(device)
    refused(built, lambda: built.add(bp.ReLU()), RuntimeError, "cannot be added")


def test_classes_need_a_loss_about_classes(device: str) -> None:
    model = make(device, "mse")
    for call in (model.predict_proba, model.predict_class):
        refused(model, lambda call=call: call(X), ValueError, "'mse'", "softmax_cross_entropy")  # type: ignore[misc]


@pytest.mark.parametrize(
    "shape", [5, (None, 3), (20, 4), (4,), (None, 4, 4), 0, -1, 4.0, "4", None]
)
def test_bad_build(device: str, shape: Any) -> None:
    model = make(device)
    kind = TypeError if isinstance(shape, (float, str, type(None))) else ValueError
    fragment = "built for 4 inputs" if shape in (5, (None, 3)) else "input_shape"
    refused(model, lambda: model.build(shape), kind, fragment)


BAD_PARAMETERS: dict[str, tuple[Any, type[Exception], tuple[str, ...]]] = {
    "name": ({"0.kernal": X}, ValueError, ("unknown parameter '0.kernal'", "'0.kernel'")),
    "number": ({0: X}, TypeError, ("parameter must be one of", "int 0")),
    "shape": ({"0.bias": np.ones(4)}, ValueError, ("0.bias has shape (5,)", "(4,)")),
    "transposed": ({"0.kernel": np.ones((5, 4))}, ValueError, ("shape (4, 5)", "(5, 4)")),
    "broadcast": ({"0.kernel": 1.0}, ValueError, ("shape (4, 5)", "()")),
    "NaN": ({"0.bias": with_value(np.ones(5), 2, np.nan)}, ValueError, ("0.bias", "NaN", "row 2")),
    "complex": ({"0.bias": np.ones(5) * 1j}, TypeError, ("complex128",)),
    "second": ({"0.bias": np.ones(5), "1.bias": np.ones(9)}, ValueError, ("1.bias",)),
    "no dict": ([X], TypeError, ("dict from name to array",)),
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_bad_parameters(device: str, case: str) -> None:
    values, kind, fragments = BAD_PARAMETERS[case]
    model = make(device)
    refused(model, lambda: model.set_parameters(values), kind, *fragments)


def test_optimizers_refuse_what_does_not_fit() -> None:
    optimizer = bp.SGD(0.1)
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.learning_rate = -1.0
    with pytest.raises(AttributeError, match="no 'lr'; it has learning_rate"):
        optimizer.lr = 0.1  # type: ignore[attr-defined]
    optimizer.momentum = 0.5  # free until compiled
    model = bp.Sequential([bp.Dense(1)])
    model.compile(optimizer, "mse")
    compiled = model.optimizer
    assert isinstance(compiled, bp.SGD)
    compiled.momentum = 0.9
    with pytest.raises(ValueError, match=r"call model\.compile again"):
        compiled.momentum = 0.0
    with pytest.raises(ValueError, match=r"call model\.compile again"):
        compiled.nesterov = True
    assert compiled.config() == bp.SGD(0.1, 0.9).config()


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Softmin'"):
        bp.Softmin  # noqa: B018
