"""The native random numbers against their NumPy twin: equal in every bit.

Sizes: nothing, around the four words of a block and the 128 words (64 normals) of a native batch,
and a few thousand, of which some hundred lie in the normal's tails. Seeds, streams and purposes:
small ones and both ends of their range. Tolerance: none; integers and exactly rounded operations
leave nothing to tolerate. The twin itself is checked in test_reference.py.
"""

from typing import Any

import numpy as np
import pytest

from fastbp import _core
from fastbp.reference import random as twin

SIZES = [0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 255, 257, 4099]
KEYS = [  # seed, stream, purpose
    (0, 0, twin.INIT),
    (1, 2, twin.DROPOUT),
    (0x123456789ABCDEF0, 7, twin.SPLIT),
    (2**64 - 1, 2**32 - 1, 2**32 - 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["random_uniform", "random_normal"])
def test_fills_equal_the_twin(name: str, key: tuple[int, int, int], dtype: str) -> None:
    for n in SIZES:
        native, expected = np.full(n, np.nan, dtype), np.full(n, np.nan, dtype)
        getattr(_core, name)(native, -0.3, 0.7, *key)
        getattr(twin, name)(expected, -0.3, 0.7, *key)
        assert native.tobytes() == expected.tobytes(), (name, n)


def test_a_matrix_is_filled_in_flat_order() -> None:
    matrix, flat = np.empty((5, 7)), np.empty(35)
    _core.random_normal(matrix, 0.0, 1.0, *KEYS[2])
    _core.random_normal(flat, 0.0, 1.0, *KEYS[2])
    assert (matrix.ravel() == flat).all()


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_permutations_equal_the_twin(seed: int, epoch: int) -> None:
    for n in SIZES:
        native: np.ndarray[Any, Any] = _core.permutation(n, seed, epoch)
        assert native.dtype == np.int64
        assert (native == twin.permutation(n, seed, epoch)).all(), n
        assert (np.sort(native) == np.arange(n)).all(), n


def test_keys_give_different_numbers() -> None:
    columns = []
    for key in KEYS:
        column = np.empty(16)
        _core.random_uniform(column, 0.0, 1.0, *key)
        columns.append(column.tobytes())
    assert len(set(columns)) == len(KEYS)
