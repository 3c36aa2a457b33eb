"""fastbp.ops as a NumPy user meets it: dtypes, layouts, broadcasting, out=, errors.

Values are compared with fastbp.reference.ops; how precise each kernel is, other files test. Here
the allowance is 1e-5 relative in float32 and 1e-12 in float64, for sums of a few dozen terms.
A strided, misaligned or byte-swapped input must give the bits of its contiguous copy.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp import ops
from fastbp.reference import ops as reference

RNG = np.random.default_rng(0)
ALLOWED = {np.float32: 1e-5, np.float64: 1e-12}
DTYPES = [np.float32, np.float64]
UNARY = [*bp.registry.ACTIVATIONS, "exp", "expm1", "erf", "softmax"]
POSITIVE = ["log", "log1p"]


def near(got: Any, want: Any, dtype: Any = np.float64) -> None:
    np.testing.assert_allclose(got, want, rtol=ALLOWED[dtype], atol=ALLOWED[dtype])


def values(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers, differently in memory."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    frozen = x.copy()
    frozen.flags.writeable = False
    return {
        "contiguous": x.copy(),
        "Fortran": np.asfortranarray(x),
        "every other": wide[..., ::2],
        "backwards": x[..., ::-1].copy()[..., ::-1],
        "misaligned": shifted,
        "swapped bytes": x.astype(x.dtype.newbyteorder()),
        "read-only": frozen,
        "list": x.tolist() if x.dtype == np.float64 else x.copy(),
    }


def call(module: Any, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(module, name)
    return function


def test_the_reference_has_the_same_names_and_signatures() -> None:
    assert set(ops.__all__) == set(reference.__all__)
    for name in ops.__all__:
        mine, twin = (inspect.signature(call(module, name)) for module in (ops, reference))
        assert list(mine.parameters) == list(twin.parameters), name
        for parameter, other in zip(
            mine.parameters.values(), twin.parameters.values(), strict=True
        ):
            assert (parameter.kind, parameter.default) == (other.kind, other.default), name


def test_every_name_has_a_docstring_and_unknown_names_are_helped() -> None:
    for name in ops.__all__:
        assert call(ops, name).__doc__
        assert call(ops, name).__name__ == name
    with pytest.raises(AttributeError, match="did you mean 'relu'"):
        ops.rellu  # noqa: B018


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_elementwise_functions_of_any_shape(name: str, dtype: Any) -> None:
    for shape in ((7,), (3, 5), (2, 3, 4), (1, 1, 33), (0,), (3, 0), (0, 3)):
        x = values(*shape, dtype=dtype)
        if name in POSITIVE:
            x = np.abs(x) + dtype(0.1)
        y = call(ops, name)(x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        near(y, call(reference, name)(x), dtype)


@pytest.mark.parametrize("name", [n for n in UNARY if n != "softmax"])
def test_numbers_give_numbers(name: str) -> None:
    y = call(ops, name)(0.5)
    assert isinstance(y, np.float64)
    assert y == call(ops, name)(np.array([0.5]))[0]
    assert isinstance(call(ops, name)(np.float32(0.5)), np.float32)
    out = np.empty(())
    assert call(ops, name)(np.array(0.5), out=out) is out
    assert out == y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_layout_does_not_matter(name: str, dtype: Any) -> None:
    x = np.abs(values(4, 9, dtype=dtype)) + dtype(0.1)
    want = call(ops, name)(x).tobytes()
    for layout, same in layouts(x).items():
        before = np.array(same).tobytes()
        assert call(ops, name)(same).tobytes() == want, layout
        assert np.array(same).tobytes() == before


@pytest.mark.parametrize(
    "kind", [bool, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, int]
)
def test_integers_count_as_float64(kind: Any) -> None:
    x = np.array([[0, 1], [1, 1]]).astype(kind)
    assert np.array_equal(ops.tanh(x), ops.tanh(x.astype(float)))
    product = ops.matmul(x, values(2, 2, dtype=np.float32))
    assert product.dtype == np.float64


def test_mixed_dtypes_give_float64() -> None:
    a, b = values(3, 4, dtype=np.float32), values(4, 2)
    assert ops.matmul(a, b).dtype == np.float64
    assert ops.matmul(b.T, a.T, bias=np.ones(3, np.float32)).dtype == np.float64
    assert ops.matmul(a, b.astype(np.float32)).dtype == np.float32
    assert ops.matmul(a, b.astype(np.float32), bias=np.ones(2)).dtype == np.float64
    assert ops.matmul(a.astype(">f4"), b.astype("<f4")).dtype == np.dtype("=f4")


@pytest.mark.parametrize(
    "x",
    [
        np.ones(3, np.float16),
        np.ones(3, complex),
        np.ones(3, object),
        np.array(["a"]),
        np.ones(3, "M8[s]"),
        None,
        [[1], [2, 3]],
        np.ma.masked_array([1.0, 2.0], [0, 1]),
    ],
    ids=str,
)
def test_other_kinds_are_refused(x: Any) -> None:
    kind = ValueError if isinstance(x, list) else TypeError
    calls: list[Callable[[], object]] = [
        lambda: ops.relu(x),
        lambda: ops.exp(x),
        lambda: ops.softmax(x),
        lambda: ops.matmul(x, np.ones((3, 3))),
        lambda: ops.matmul(np.ones((3, 3)), x),
        lambda: ops.mse(x, x),
        lambda: ops.activation_backward("tanh", x, y=np.ones(3)),
        lambda: ops.dense_forward(x, x),
        lambda: ops.sgd_update(np.ones(3), x, learning_rate=0.1),
    ]
    for wrong in calls:
        with pytest.raises(kind):
            wrong()


MATMUL_SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((1, 1), (1, 1)),
    ((6, 3, 4), (6, 4, 5)),
    ((6, 3, 4), (4, 5)),
    ((3, 4), (6, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((2, 3, 3, 4), (2, 3, 4, 1)),
    ((4,), (2, 3, 4, 5)),
    ((2, 3, 3, 4), (4,)),
    ((0, 4), (4, 5)),
    ((3, 4), (4, 0)),
    ((3, 0), (0, 5)),
    ((0, 3, 4), (4, 5)),
    ((2, 0, 3, 4), (1, 1, 4, 5)),
    ((0,), (0,)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a", "b"), MATMUL_SHAPES)
def test_matmul_has_numpys_shapes(a: tuple[int, ...], b: tuple[int, ...], dtype: Any) -> None:
    x, y = values(*a, dtype=dtype), values(*b, dtype=dtype)
    want = np.matmul(x.astype(float), y.astype(float))
    got = ops.matmul(x, y)
    assert np.shape(got) == np.shape(want)
    assert got.dtype == dtype
    near(got, want, dtype)
    out = np.full(np.shape(want), np.nan, dtype)
    assert ops.matmul(x, y, out=out) is out
    assert np.array_equal(out, got)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul_transposes_biases_and_activates(transpose_a: bool, transpose_b: bool) -> None:
    a, b, bias = values(2, 7, 5), values(5, 3), values(3)
    want = np.tanh(a @ b + bias)
    given_a = a.swapaxes(-1, -2).copy() if transpose_a else a
    given_b = b.T.copy() if transpose_b else b
    keywords = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    near(ops.matmul(given_a, given_b, bias=bias, activation="tanh", **keywords), want)
    near(ops.matmul(given_a, given_b, **keywords), a @ b)
    assert ops.matmul(a[0, 0], b, **keywords | {"transpose_b": False}).shape == (3,)


def test_matmul_layouts_give_the_same_bits() -> None:
    a, b = values(6, 5), values(5, 4)
    want = ops.matmul(a, b).tobytes()
    for layout, left in layouts(a).items():
        for other, right in layouts(b).items():
            assert ops.matmul(left, right).tobytes() == want, (layout, other)
    stack = np.broadcast_to(a, (3, 6, 5))
    assert ops.matmul(stack, b)[1].tobytes() == want
    assert ops.matmul(stack[::-1], b).shape == (3, 6, 4)


def test_empty_inner_axis_is_the_bias() -> None:
    result = ops.matmul(np.ones((2, 0)), np.ones((0, 3)), bias=[-1.0, 0.0, 1.0], activation="relu")
    assert result.tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (((3, 4), (5, 2)), ("4 columns", "5 rows", "(3, 4)", "(5, 2)")),
        (((2, 3, 4), (3, 4, 5)), ("broadcast", "(2, 3, 4)", "(3, 4, 5)")),
        (((), (3, 3)), ("at least one axis", "()")),
    ],
)
def test_matmul_refuses_shapes(arguments: Any, fragments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="shape") as caught:
        ops.matmul(*(np.ones(shape) for shape in arguments))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_matmul_refuses_bias_and_names() -> None:
    a = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"bias has shape \(2,\); expected \(3,\)"):
        ops.matmul(a, a, bias=np.ones(2))
    with pytest.raises(ValueError, match="unknown activation 'softmax'"):
        ops.matmul(a, a, activation="softmax")
    assert ops.matmul(a, np.ones(3), bias=1.0).tolist() == [4, 4, 4]


OUT_CALLS: dict[str, Callable[..., Any]] = {
    "matmul": lambda x, out=None: ops.matmul(x, x, out=out),
    "relu": lambda x, out=None: ops.relu(x, out),
    "gelu": lambda x, out=None: ops.gelu(x, out=out),
    "exp": lambda x, out=None: ops.exp(x, out),
    "softmax": lambda x, out=None: ops.softmax(x, out),
    "forward": lambda x, out=None: ops.activation_forward("silu", x, out=out),
    "backward": lambda x, out=None: ops.activation_backward("silu", x, z=x + 1, out=out),
    "backward of y": lambda x, out=None: ops.activation_backward("tanh", x, y=x, out=out),
}


@pytest.mark.parametrize("name", OUT_CALLS)
def test_out_of_any_layout_and_overlap(name: str) -> None:
    function = OUT_CALLS[name]
    x = values(6, 6)
    want = function(x)
    store = np.full((14, 14), 7.0)
    places = {
        "contiguous": np.empty((6, 6)),
        "Fortran": np.empty((6, 6), order="F"),
        "strided": store[1:13:2, 1:13:2],
        "backwards": np.empty((6, 6))[::-1, ::-1],
        "misaligned": np.zeros(6 * 6 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(6, 6),
    }
    for layout, out in places.items():
        assert function(x, out=out) is out
        assert out.tobytes() == want.tobytes(), layout
    mask = np.ones((14, 14), bool)
    mask[1:13:2, 1:13:2] = False
    assert (store[mask] == 7).all()  # nothing beside the strided place was written
    memory = np.zeros(80)
    for offset in (0, 1, 5, 36):
        source, out = memory[:36].reshape(6, 6), memory[offset : offset + 36].reshape(6, 6)
        source[...] = x
        assert function(source, out=out) is out
        assert out.tobytes() == want.tobytes(), offset
    same = x.copy()
    assert function(same, out=same) is same
    assert same.tobytes() == want.tobytes()
    turned = x.copy()
    assert function(turned, out=turned.T).tobytes() == want.tobytes()


@pytest.mark.parametrize("name", OUT_CALLS)
def test_out_that_does_not_fit(name: str) -> None:
    function = OUT_CALLS[name]
    x = values(6, 6)
    frozen = np.zeros((6, 6))
    frozen.flags.writeable = False
    for out, kind, fragments in (
        (np.zeros((6, 5)), ValueError, ("out has shape (6, 5)", "(6, 6)")),
        (np.zeros(36), ValueError, ("(36,)",)),
        (np.zeros((6, 6), np.float32), TypeError, ("<f4", "float64")),
        (np.zeros((6, 6), int), TypeError, ("<i8", "float64")),
        (np.zeros((6, 6), ">f8"), TypeError, (">f8",)),
        (frozen, ValueError, ("read-only",)),
        (np.broadcast_to(np.zeros(6), (6, 6)), ValueError, ("read-only",)),
        ([[0.0] * 6] * 6, TypeError, ("must be a NumPy array",)),
    ):
        before = np.array(out).tobytes()
        with pytest.raises(kind) as caught:
            function(x, out=out)
        for fragment in fragments:
            assert fragment in str(caught.value)
        assert np.array(out).tobytes() == before


@pytest.mark.parametrize("name", bp.registry.ACTIVATIONS)
def test_activation_backward_from_z_and_y(name: str) -> None:
    z, dy = values(5, 7), values(5, 7)
    want = reference.activation_backward(name, dy, z=z)
    near(ops.activation_backward(name, dy, z=z), want)
    y = ops.activation_forward(name, z)
    if bp.registry.ACTIVATIONS[name]["saves"] == "input":
        with pytest.raises(ValueError, match="needs z"):
            ops.activation_backward(name, dy, y=y)
    else:
        near(ops.activation_backward(name, dy, y=y), want)


def test_activation_backward_refuses() -> None:
    with pytest.raises(ValueError, match="needs z, or y"):
        ops.activation_backward("tanh", np.ones(3))
    with pytest.raises(ValueError, match=r"dy has shape \(3,\), but y has \(4,\)"):
        ops.activation_backward("tanh", np.ones(3), y=np.ones(4))
    with pytest.raises(ValueError, match="unknown activation"):
        ops.activation_backward("tan", np.ones(3), y=np.ones(3))


def test_activation_parameters() -> None:
    x = np.array([-2.0, 0.0, 3.0])
    assert ops.leaky_relu(x, 0.5).tolist() == [-1, 0, 3]
    assert ops.leaky_relu(x, negative_slope=0.5).tolist() == [-1, 0, 3]
    near(ops.elu(x, alpha=2.0), [2 * np.expm1(-2), 0, 3])
    near(ops.activation_forward("elu", x, param=2.0), ops.elu(x, 2.0))
    for wrong, kind in (
        (lambda: ops.leaky_relu(x, -0.5), ValueError),
        (lambda: ops.elu(x, "a"), TypeError),
        (lambda: ops.relu(x, 0.5), TypeError),
        (lambda: ops.relu(x, alpha=0.5), TypeError),
        (lambda: ops.activation_forward("relu", x, param=1.0), ValueError),
        (lambda: ops.relu(), TypeError),
    ):
        with pytest.raises(kind):
            wrong()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [None, *bp.registry.ACTIVATIONS])
def test_dense_forward_and_backward(name: str | None, dtype: Any) -> None:
    x, kernel, bias = (values(*s, dtype=dtype) for s in ((9, 4), (4, 6), (6,)))
    dy = values(9, 6, dtype=dtype)
    y, saved = ops.dense_forward(x, kernel, bias, name)
    want, twin = reference.dense_forward(x, kernel, bias, name)
    near(y, want, dtype)
    got = ops.dense_backward(x, kernel, saved, dy, name)
    for mine, other in zip(got, reference.dense_backward(x, kernel, twin, dy, name), strict=True):
        assert mine.dtype == dtype
        near(mine, other, dtype)
    dx, dkernel, dbias = ops.dense_backward(
        x, kernel, saved, dy, name, use_bias=False, input_gradient=False
    )
    assert dx is None
    assert dbias is None
    assert np.array_equal(dkernel, got[1])


def test_dense_of_any_layout_has_the_same_bits() -> None:
    x, kernel, dy = values(9, 4), values(4, 6), values(9, 6)
    y, saved = ops.dense_forward(x, kernel, None, "relu")
    want = [a.tobytes() for a in ops.dense_backward(x, kernel, saved, dy, "relu")]
    for one, two, three in zip(
        layouts(x).values(), layouts(kernel).values(), layouts(dy).values(), strict=True
    ):
        again, _ = ops.dense_forward(one, two, None, "relu")
        assert again.tobytes() == y.tobytes()
        assert [a.tobytes() for a in ops.dense_backward(one, two, saved, three, "relu")] == want


def test_dense_refuses() -> None:
    x, kernel = np.ones((3, 4)), np.ones((4, 2))
    y, saved = ops.dense_forward(x, kernel, None, "tanh")
    for wrong in (
        lambda: ops.dense_forward(x[0], kernel),
        lambda: ops.dense_forward(x, kernel.T),
        lambda: ops.dense_forward(x, kernel, np.ones(3)),
        lambda: ops.dense_backward(x, kernel, saved, y[:2], "tanh"),
        lambda: ops.dense_backward(x, kernel, saved[:, :1], y, "tanh"),
        lambda: ops.dense_backward(x, kernel.T, saved, y, "tanh"),
    ):
        with pytest.raises(ValueError, match=r"shape|expected"):
            wrong()


ELEMENTWISE_LOSSES = [n for n in bp.registry.LOSSES if n != "softmax_cross_entropy"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE_LOSSES)
def test_losses(name: str, dtype: Any) -> None:
    for shape in ((5,), (5, 3), (2, 3, 4), (1, 1)):
        y, t = (RNG.uniform(0.01, 0.99, size=shape).astype(dtype) for _ in range(2))
        loss, dy = call(ops, name)(y, t)
        want, twin = call(reference, name)(y, t)
        assert type(loss) is float
        assert (dy.shape, dy.dtype) == (shape, dtype)
        near(loss, want, dtype)
        near(dy, twin, dtype)
        again, other = call(ops, name)(layouts(y)["Fortran"], layouts(t)["swapped bytes"])
        assert again == loss
        assert other.tobytes() == dy.tobytes()
    for wrong in (((3,), (3, 1)), ((3, 2), (2, 3)), ((0, 3), (0, 3))):
        with pytest.raises(ValueError, match="shape"):
            call(ops, name)(*(np.full(shape, 0.5) for shape in wrong))


def test_huber_has_its_delta() -> None:
    loss, dy = ops.huber(np.array([3.0]), np.array([0.0]), delta=2.0)
    assert (loss, dy.tolist()) == (4.0, [2.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_cross_entropy_targets(dtype: Any) -> None:
    logits, numbers = values(6, 4, dtype=dtype), np.array([0, 3, 1, 2, 3, 0])
    loss, dlogits = ops.softmax_cross_entropy(logits, numbers)
    near(loss, reference.softmax_cross_entropy(logits, numbers)[0], dtype)
    near(dlogits, reference.softmax_cross_entropy(logits, numbers)[1], dtype)
    for form in (
        np.eye(4)[numbers],
        numbers.astype(np.uint8),
        numbers.astype(float),
        list(numbers),
    ):
        again, other = ops.softmax_cross_entropy(logits, form)
        near(again, loss, dtype)
        near(other, dlogits, dtype)
    for wrong, said in (
        (np.array([0, 4, 1, 2, 3, 0]), r"target\[1\] is 4"),
        (np.array([0, -1, 1, 2, 3, 0]), r"target\[1\] is -1"),
        (np.array([0, 0.5, 1, 2, 3, 0]), r"target\[1\] is 0.5"),
        (numbers[:5], "class numbers"),
        (np.ones((6, 3)), "class numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            ops.softmax_cross_entropy(logits, wrong)
    with pytest.raises(ValueError, match="shape"):
        ops.softmax_cross_entropy(logits[0], numbers[:1])


def test_binary_losses_want_targets_in_the_unit_interval() -> None:
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=r"from -1 to 2"):
            call(ops, name)(np.full(3, 0.5), np.array([-1.0, 0.0, 2.0]))


def test_nan_is_a_value() -> None:
    x = np.array([1.0, np.nan, -np.inf, np.inf])
    assert np.isnan(ops.relu(x)[1])
    assert ops.relu(x)[2:].tolist() == [0, np.inf]
    assert np.isnan(ops.mse(x, np.zeros(4))[0])
    assert np.isnan(ops.matmul(x, np.ones(4)))


UPDATES = {
    "sgd": ({"learning_rate": 0.1}, 0),
    "momentum": ({"learning_rate": 0.1, "momentum": 0.9}, 1),
    "nesterov": ({"learning_rate": 0.1, "momentum": 0.9}, 1),
    "rmsprop": ({}, 1),
    "adagrad": ({}, 1),
    "adam": ({"step": 3}, 2),
    "adamw": ({"step": 3}, 2),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_updates_work_in_place(name: str, dtype: Any) -> None:
    keywords, slots = UPDATES[name]
    start = [values(5, 7, dtype=dtype), values(5, 7, dtype=dtype)]
    start += [np.abs(values(5, 7, dtype=dtype)) for _ in range(slots)]
    mine, twin = ([a.copy() for a in start] for _ in range(2))
    update = call(ops, f"{name}_update")
    assert update(*mine, **keywords) is None
    call(reference, f"{name}_update")(*twin, **keywords)
    for one, two in zip(mine, twin, strict=True):
        near(one, two, dtype)
    assert np.array_equal(mine[1], start[1])  # the gradient
    for layout in ("Fortran", "every other", "misaligned"):
        other = [layouts(a)[layout] for a in start]
        writeable = all(a.flags.writeable for a in other)
        if not writeable:
            continue
        update(*other, **keywords)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(other, mine, strict=True)), layout
    for key, bad in (("learning_rate", -1), ("weight_decay", np.nan), ("nothing", 1)):
        with pytest.raises(TypeError if key == "nothing" else ValueError, match=key):
            update(*mine, **{**keywords, key: bad})


def test_updates_refuse() -> None:
    w, g, s = np.ones(3), np.ones(3), np.zeros(3)
    frozen = np.ones(3)
    frozen.flags.writeable = False
    rate = {"learning_rate": 0.1}
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: ops.sgd_update(w, g), TypeError, "learning_rate"),
        (lambda: ops.sgd_update([1.0], g, **rate), TypeError, "in place"),
        (lambda: ops.sgd_update(np.ones(3, int), g, **rate), TypeError, "<i8"),
        (lambda: ops.sgd_update(np.ones(3, ">f8"), g, **rate), TypeError, ">f8"),
        (lambda: ops.sgd_update(frozen, g, **rate), ValueError, "w is read-only"),
        (lambda: ops.sgd_update(w, g[:2], **rate), ValueError, r"g has shape \(2,\)"),
        (lambda: ops.sgd_update(w, g.astype(np.float32), **rate), ValueError, "float32"),
        (lambda: ops.momentum_update(w, g, s, **rate), TypeError, "momentum"),
        (lambda: ops.rmsprop_update(w, g, w), ValueError, "overlap"),
        (lambda: ops.rmsprop_update(w, g, s[:2]), ValueError, "v has shape"),
        (lambda: ops.rmsprop_update(w, g, frozen), ValueError, "v is read-only"),
        (lambda: ops.adam_update(w, g, s, s.copy()), TypeError, "step"),
        (lambda: ops.adam_update(w, g, s, s.copy(), step=0), ValueError, "step"),
    ]
    for wrong, kind, said in calls:
        with pytest.raises(kind, match=said):
            wrong()
    assert w.tolist() == [1, 1, 1]
    assert s.tolist() == [0, 0, 0]


def test_the_gradient_may_overlap_what_is_updated() -> None:
    memory = np.arange(6.0)
    w, g = memory[:4], memory[2:]
    want = w - 0.5 * g
    ops.sgd_update(w, g, learning_rate=0.5)
    assert w.tolist() == want.tolist()
