"""The oracle judged by itself, in float64: its formulas. Its engine: test_reference_engine.py.

Gradients: every activation x every loss x two random networks of 2 or 3 inputs, 3 or 4 units, 1 to
3 outputs and 3 to 5 rows, all parameters and all inputs, against the 4-point central difference
    f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / (12 h) + O(h^4 f^(5) / 30).
With h = 1e-3, f and f^(5) of the order of 1 and 1000 and f exact to 10 eps, truncation adds 3e-11
and rounding 10 eps 1.5 / h = 3e-12: the tolerance is 2e-10. Small networks suffice, since a
gradient is wrong at any size or at none, and let every parameter be tried. Kinks are excluded on
purpose: no hidden z and no residual may come within the reach of 2 h of one.

Values: against constants of 20 digits (mpmath) and against Python's math library, to a few ulp.
Optimizers: against the algorithms as PyTorch's documentation states them, in decimal arithmetic.
Worked examples: to the 12 digits that they have.
"""

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbp import reference
from fastbp.reference import ACTIVATIONS, LOSSES, OPTIMIZERS, Engine, random, special

Array = NDArray[Any]

EPS = 2.0**-52
STEP = 1e-3
STENCIL_TOLERANCE = 2e-10
KINKED_ACTIVATIONS = {"relu": 0.0, "leaky_relu": 0.0, "elu": 0.0}  # where the kink is
KINK_MARGIN = 0.02  # ten times the largest change that 2 h makes to a z or a residual here


def stencil(function: Any, at: Array) -> Array:
    """The gradient of function(), which reads `at`, by 4-point central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        old, values = at[index], {}
        for k in (-2, -1, 1, 2):
            at[index] = old + k * STEP
            values[k] = function()
        at[index] = old
        gradient[index] = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * STEP)
    return gradient


def random_problem(
    activation: str, loss: str, rng: np.random.Generator
) -> tuple[Engine, Array, Array]:
    """A network dense-activation-dense (and sigmoid where the loss wants probabilities), x, y."""
    inputs, units, rows = (int(rng.integers(a, b)) for a, b in ((2, 4), (3, 5), (3, 6)))
    outputs = int(rng.integers(2, 4)) if LOSSES[loss].rows else int(rng.integers(1, 4))
    param = {"leaky_relu": 0.2, "elu": 0.7}.get(activation, 0.0)
    layers = [("dense", units, True), ("activation", activation, param), ("dense", outputs, True)]
    last = {"binary_cross_entropy": "sigmoid", "poisson": "softplus"}.get(loss)
    if last is not None:
        layers.append(("activation", last, 0.0))
    engine = Engine(inputs, layers, "float64")
    for offset, fan_in, width, _ in engine.parameter_shapes:
        size = (fan_in + 1) * width
        engine.parameters[offset : offset + size] = rng.normal(size=size) / math.sqrt(fan_in)
    x = rng.normal(size=(rows, inputs))
    if loss == "softmax_cross_entropy" and rng.random() < 0.5:
        y = rng.integers(0, outputs, rows)
    elif LOSSES[loss].threshold is not None or LOSSES[loss].rows:
        y = rng.random((rows, outputs))
    elif loss.startswith("poisson"):
        y = rng.poisson(2, (rows, outputs)).astype(float)
    else:
        y = 2 * rng.normal(size=(rows, outputs))
    engine.compile(loss, LOSSES[loss].default_param, "sgd", {"learning_rate": 0.1})
    return engine, x, y


def near_a_kink(engine: Engine, activation: str, loss: str, x: Array, y: Array) -> bool:
    _, inputs, units, _ = engine.parameter_shapes[0]
    first = Engine(inputs, [("dense", units, True)], "float64")
    first.parameters[...] = engine.parameters[: first.parameters.size]
    z, output = np.empty((len(x), units)), np.empty((len(x), engine.outputs))
    first.predict(x, z)
    engine.predict(x, output)
    distances = [np.inf]
    if activation in KINKED_ACTIVATIONS:
        distances.append(np.min(np.abs(z - KINKED_ACTIVATIONS[activation])))
    if loss in ("mae", "quantile"):
        distances.append(np.min(np.abs(output - y)))
    if loss.endswith("hinge"):
        distances.append(np.min(np.abs(np.abs(output) - 1)))
    if loss == "huber":
        distances.append(np.min(np.abs(np.abs(output - y) - LOSSES[loss].default_param)))
    return bool(min(distances) < KINK_MARGIN)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation: str, loss: str) -> None:
    rng = np.random.default_rng([list(ACTIVATIONS).index(activation), list(LOSSES).index(loss)])
    tried = 0
    while tried < 2:
        engine, x, y = random_problem(activation, loss, rng)
        if near_a_kink(engine, activation, loss, x, y):
            continue
        tried += 1

        def value(engine: Engine = engine, x: Array = x, y: Array = y) -> float:
            return engine.evaluate(x, y, len(x), [])[0]

        measured = value()
        # A mean over the epoch is summed up and divided again.
        assert engine.gradients(x, y) == pytest.approx(measured, rel=4 * EPS)
        expected = np.zeros_like(engine.parameters)
        for offset, fan_in, width, _ in engine.parameter_shapes:
            block = slice(offset, offset + (fan_in + 1) * width)
            expected[block] = stencil(value, engine.parameters[block])
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(
            engine.gradients_, expected, rtol=0, atol=STENCIL_TOLERANCE * scale
        )
        loss_value, dx = engine.input_gradient(x, y)
        assert loss_value == pytest.approx(measured, rel=4 * EPS)
        scale = max(1.0, float(np.abs(dx).max()))
        np.testing.assert_allclose(dx, stencil(value, x), rtol=0, atol=STENCIL_TOLERANCE * scale)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_from_output_equal_those_from_input(name: str) -> None:
    """f'(z) in terms of y: a few eps of 1 are lost where y saturates, hence the absolute bound."""
    entry = ACTIVATIONS[name]
    z = np.linspace(-6, 6, 241)
    dy = np.linspace(1, 2, 241)
    y = reference.activation_forward(name, z)
    expected = reference.activation_backward(name, dy, z=z)
    if entry.derivative_from_output is None:
        with pytest.raises(ValueError, match="needs z"):
            reference.activation_backward(name, dy, y=y)
        return
    np.testing.assert_allclose(
        reference.activation_backward(name, dy, y=y), expected, rtol=0, atol=8 * EPS
    )


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (1e-10, 1.128379167095512615e-10),
        (0.25, 0.27632639016823693299),
        (0.5, 0.52049987781304653768),
        (0.75, 0.7111556336535151316),
        (1, 0.84270079294971486934),
        (2, 0.99532226501895273416),
        (3, 0.99997790950300141456),
        (5, 0.99999999999846254021),
    ],
)
def test_erf_has_the_known_values(x: float, expected: float) -> None:
    values = reference.erf(np.array([x, -x]))
    np.testing.assert_allclose(values, [expected, -expected], rtol=3 * EPS, atol=0)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (-30, -1.4720141781444561179e-196),
        (-10, -7.619853024160526066e-23),
        (-5, -1.4332578593959695584e-6),
        (-2, -0.045500263896358414401),
        (-1, -0.15865525393145705141),
        (-0.5, -0.15426876936299344818),
        (0.5, 0.34573123063700655182),
        (1, 0.84134474606854294859),
        (3, 2.9959503059051097164),
    ],
)
def test_gelu_has_the_known_values(z: float, expected: float) -> None:
    """z Phi(z), also far in the tail, where 1 + erf would have lost every digit."""
    np.testing.assert_allclose(reference.gelu(np.array([z])), [expected], rtol=4 * EPS, atol=0)


def test_erf_and_normal_cdf_equal_the_c_library() -> None:
    """C's erf and erfc are good to 1 ulp; rounding z / sqrt(2) costs erfc z^2 eps / 2 more."""
    z = np.concatenate([np.linspace(-36, 36, 7201), np.linspace(-1e-3, 1e-3, 101)])
    np.testing.assert_allclose(special.erf(z), [math.erf(v) for v in z], rtol=4 * EPS, atol=0)
    expected = np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in z])
    allowed = (6 + np.where(z < 0, z * z, 0)) * EPS * expected
    assert (np.abs(special.normal_cdf(z) - expected) <= allowed).all()


FAR = np.array([-np.inf, -1e4, 1e4, np.inf])
LIMITS = {  # name: f at -inf, -1e4, 1e4, inf and the derivative there
    "identity": (FAR, [1, 1, 1, 1]),
    "relu": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
    "leaky_relu": ([-np.inf, -100, 1e4, np.inf], [0.01, 0.01, 1, 1]),
    "sigmoid": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "tanh": ([-1, -1, 1, 1], [0, 0, 0, 0]),
    "softplus": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
    "elu": ([-1, -1, 1e4, np.inf], [0, 0, 1, 1]),
    "gelu": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
    "gelu_tanh": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
    "silu": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
    "mish": ([0, 0, 1e4, np.inf], [0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_their_head_far_out(name: str) -> None:
    """Right limits without a floating-point event other than underflow; NaN propagates."""
    entry = ACTIVATIONS[name]
    values, slopes = LIMITS[name]
    with np.errstate(all="raise", under="ignore"):
        assert (entry.forward(FAR, entry.default_param) == values).all()
        assert (entry.derivative(FAR, entry.default_param) == slopes).all()
        for formula in (entry.forward, entry.derivative, entry.derivative_from_output):
            if formula is not None:
                assert np.isnan(formula(np.array([np.nan]), entry.default_param)).all()
    assert entry.forward(np.array([0.0]), entry.default_param) == [
        {"sigmoid": 0.5, "softplus": math.log(2)}.get(name, 0.0)
    ]


def test_losses_keep_their_head_far_out() -> None:
    big, one, zero = np.array([[1e4]]), np.array([[1.0]]), np.array([[0.0]])
    with_logits = reference.binary_cross_entropy_with_logits
    for z, t, loss, dz in (
        (big, one, 0, 0),
        (big, zero, 1e4, 1),
        (-big, one, 1e4, -1),
        (-big, zero, 0, 0),
    ):
        assert with_logits(z, t) == (loss, [[dz]])
    logits = np.array([[1e4, -1e4]])
    assert reference.softmax_cross_entropy(logits, np.array([0]))[0] == 0
    loss, dlogits = reference.softmax_cross_entropy(logits, np.array([1]))
    assert loss == 2e4
    assert (dlogits == [[1, -1]]).all()
    masked, dmasked = reference.softmax_cross_entropy(
        np.array([[0.0, -np.inf, 0.0]]), np.array([[0.5, 0.0, 0.5]])
    )
    assert masked == math.log(2)
    assert (dmasked == 0).all()
    for y in (0.0, 1.0):
        loss, dy = reference.binary_cross_entropy(np.array([[y]]), np.array([[1 - y]]))
        assert loss == pytest.approx(-math.log(1e-7))
        assert dy[0, 0] == pytest.approx(1e7 if y else -1e7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_losses_pass_nan_on_and_never_warn(name: str, bad: float) -> None:
    y, t = np.array([[0.25, bad], [0.5, 0.75]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    loss, dy = getattr(reference, name)(y, t)
    if np.isnan(bad):
        assert np.isnan(loss)
        assert np.isnan(dy[0, 1])
    assert np.isfinite(dy[1]).all()


def test_mse_is_half_sse_over_half_the_elements() -> None:
    rng = np.random.default_rng(1)
    y, t = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))  # 32 elements: the quotient is exact
    (mse, dmse), (half, dhalf) = reference.mse(y, t), reference.half_sse(y, t)
    assert mse == half * 2 / 32
    assert (dmse == dhalf * 2 / 32).all()


def test_softmax_of_two_classes_is_sigmoid_of_the_difference() -> None:
    """Cross-entropies too; each side rounds a handful of times, the difference of logits once."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(50, 2)) * 5
    labels = rng.integers(0, 2, 50)
    difference = z[:, 1:] - z[:, :1]
    p = reference.softmax(z)
    np.testing.assert_allclose(p[:, 1:], reference.sigmoid(difference), rtol=40 * EPS)
    row_loss, drow = reference.softmax_cross_entropy(z, labels)
    binary_loss, dbinary = reference.binary_cross_entropy_with_logits(
        difference, labels[:, None].astype(float)
    )
    assert row_loss == pytest.approx(binary_loss, rel=40 * EPS)
    np.testing.assert_allclose(drow[:, 1:], dbinary, rtol=0, atol=4 * EPS)
    one_hot = np.eye(2)[labels]
    assert reference.softmax_cross_entropy(z, one_hot)[0] == row_loss


def documented_step(
    name: str, w: Decimal, g: Decimal, states: list[Decimal], h: dict[str, Decimal], t: int
) -> Decimal:
    """One step as the pages of torch.optim write it, in decimals; states are changed in place."""
    if name == "adamw":
        w = w - h["learning_rate"] * h["weight_decay"] * w
    else:
        g = g + h["weight_decay"] * w
    rate = h["learning_rate"]
    if name == "sgd":
        return w - rate * g
    if name in ("momentum", "nesterov"):
        states[0] = h["momentum"] * states[0] + g
        return w - rate * (states[0] if name == "momentum" else g + h["momentum"] * states[0])
    if name == "rmsprop":
        states[0] = h["rho"] * states[0] + (1 - h["rho"]) * g * g
        return w - rate * g / (states[0].sqrt() + h["epsilon"])
    if name == "adagrad":
        states[0] = states[0] + g * g
        return w - rate * g / (states[0].sqrt() + h["epsilon"])
    states[0] = h["beta_1"] * states[0] + (1 - h["beta_1"]) * g
    states[1] = h["beta_2"] * states[1] + (1 - h["beta_2"]) * g * g
    first, second = states[0] / (1 - h["beta_1"] ** t), states[1] / (1 - h["beta_2"] ** t)
    return w - rate * first / (second.sqrt() + h["epsilon"])


HYPER = {  # exact in decimal; the oracle gets the nearest doubles
    "learning_rate": "0.05",
    "momentum": "0.9",
    "rho": "0.9",
    "beta_1": "0.9",
    "beta_2": "0.999",
    "epsilon": "0.00000001",
    "weight_decay": "0.01",
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_follow_their_definition(name: str) -> None:
    """Four steps in 50 digits. 1 - beta_2 = 0.001 inherits eps / 0.001 from the double 0.999, and
    v / (1 - beta_2^t) cancels most of it: 1e-13 covers both."""
    entry = OPTIMIZERS[name]
    decimals = {key: Decimal(HYPER[key]) for key in entry.hyper}
    doubles = {key: float(HYPER[key]) for key in entry.hyper}
    gradients = ["0.5", "-0.25", "0", "2"]
    w, states = np.array([0.75]), [np.zeros(1) for _ in entry.slots]
    exact_w, exact_states = Decimal("0.75"), [Decimal(0) for _ in entry.slots]
    update = getattr(reference, f"{name}_update")
    with localcontext() as context:
        context.prec = 50
        for t, g in enumerate(gradients, start=1):
            step = {"step": t} if entry.uses_step else {}
            update(w, np.array([float(g)]), *states, **step, **doubles)
            exact_w = documented_step(name, exact_w, Decimal(g), exact_states, decimals, t)
            assert w[0] == pytest.approx(float(exact_w), rel=1e-13)
            for state, exact in zip(states, exact_states, strict=True):
                assert state[0] == pytest.approx(float(exact), rel=1e-13)


def test_optimizers_have_the_known_first_steps() -> None:
    """By hand: w = 1, g = 2, learning rate 1/8; every number below is exact in binary."""
    g = np.array([2.0])

    def stepped(name: str, states: int, **hyper: float) -> float:
        w = np.array([1.0])
        getattr(reference, f"{name}_update")(
            w, g, *np.zeros((states, 1)), learning_rate=0.125, weight_decay=0, **hyper
        )
        return float(w[0])

    assert stepped("sgd", 0) == 0.75
    assert stepped("momentum", 1, momentum=0.5) == 0.75
    assert stepped("nesterov", 1, momentum=0.5) == 0.625  # g + mu g = 3
    assert stepped("rmsprop", 1, rho=0.75, epsilon=0) == 0.75  # sqrt(v) = 1
    assert stepped("adagrad", 1, epsilon=0) == 0.875  # a first step of lr sign(g)
    assert stepped("adam", 2, step=1, beta_1=0.5, beta_2=0.75, epsilon=0) == 0.875
    assert stepped("adamw", 2, step=1, beta_1=0.5, beta_2=0.75, epsilon=0) == 0.875


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123's kat_vectors, philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_has_the_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    assert tuple(random.philox4x32(counter, key)[:, 0]) == words


def test_uniforms_are_inside_and_symmetric() -> None:
    ends = random.uniform01(np.array([0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000], dtype=np.uint64))
    assert ends[0] == 2.0**-25
    assert ends[0] + ends[1] == 1
    assert ends[2] + ends[3] == 1


def test_normal_quantile_inverts_the_normal_distribution() -> None:
    """Its relative error, below 1e-15, moves the tail probability by at most 1 + z^2 as much, which
    grows to 70; normal_cdf is good to 4 eps."""
    steps = np.concatenate([np.arange(1, 2000), 2 ** np.arange(11, 52), [2**53 - 3, 2**53 - 1]])
    odd = np.concatenate([2**53 - (2 * steps - 1), np.arange(1, 2**53, 2**44 + 2)])
    odd = odd[(odd > 0) & (odd % 2 == 1)].astype(np.int64)
    z = random.normal_quantile(odd)
    assert (random.normal_quantile(-odd) == -z).all()
    tail = (2**53 - odd) * 2.0**-54
    allowed = (1e-15 * (1 + z * z) + 4 * EPS) * tail
    assert (np.abs(special.normal_cdf(-z) - tail) <= allowed).all()
    assert 8.2 < z.max() < 8.3


def test_permutations_are_fair_permutations() -> None:
    """All 24 orders of 4 about equally often: chi-squared with 23 degrees of freedom below 60,
    which a fair generator exceeds once in 30 000 sets of seeds; the seeds are fixed."""
    assert random.permutation(0, 1, 0).tolist() == []
    assert random.permutation(1, 1, 0).tolist() == [0]
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(2400):
        order = tuple(random.permutation(4, seed, 0).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((c - 100) ** 2 / 100 for c in counts.values()) < 60
    order = random.permutation(1000, 7, 3)
    assert (np.sort(order) == np.arange(1000)).all()
    assert (order != random.permutation(1000, 7, 4)).any()


EXAMPLES = json.loads(
    (Path(__file__).parent / "fixtures" / "worked_examples.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("key", [k for k in EXAMPLES if k.startswith(("s0_", "s1_", "s3_"))])
def test_worked_examples_to_their_12_digits(key: str) -> None:
    """The fixture rounds to 12 decimals: half a unit, and 1e-15 of our own. Its W is (out, in)."""

    def check(actual: Array, expected: Any) -> None:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=0.5e-12 + 1e-15)

    example = EXAMPLES[key]
    activation = {"linear": "identity"}.get(example["activation"], example["activation"])
    x, y = np.array([example["x"]], dtype=float), np.array([example["y"]])
    layers: list[tuple[Any, ...]] = []
    for W in example["W"]:
        layers += [("dense", len(W), True), ("activation", activation, 0.0)]
    engine = Engine(x.shape[1], layers, "float64")

    def split(flat: Array) -> list[tuple[Array, Array]]:
        """(W, b) of each layer, W as in the fixture."""
        return [
            (flat[o : o + n * m].reshape(n, m).T, flat[o + n * m : o + (n + 1) * m])
            for o, n, m, _ in engine.parameter_shapes
        ]

    for (W, b), example_W, example_b in zip(
        split(engine.parameters), example["W"], example["b"], strict=True
    ):
        W[...], b[...] = example_W, example_b
    for depth in range(1, len(layers) + 1):
        part = Engine(x.shape[1], layers[:depth], "float64")
        part.parameters[...] = engine.parameters[: part.parameters.size]
        out = np.empty((1, part.outputs))
        part.predict(x, out)
        check(out[0], example["z" if depth % 2 else "a"][(depth - 1) // 2])
    engine.compile("half_sse", 0.0, "sgd", {"learning_rate": example["lr"]})
    check(np.array(engine.gradients(x, y)), example["loss"])
    for k, (dW, db) in enumerate(split(engine.gradients_)):
        check(dW, example["dW"][k])
        check(db, example["db"][k])
        check(db, example["delta"][k])
    check(engine.input_gradient(x, y)[1][0], example["dx"])
    check(np.array(engine.step(x, y)), example["loss"])
    for k, (W, b) in enumerate(split(engine.parameters)):
        check(W, example["W_new"][k])
        check(b, example["b_new"][k])
