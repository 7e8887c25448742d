"""bfloat16 in NumPy, which ml_dtypes brings: every layer keeps it, and computes in float32."""

from typing import Any

import numpy as np
import pytest
from cases import CASES
from support import Draw, Library, largest_error

from attnbackends import get_backend
from attnlayers import functional as F

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NUMPY = Library(get_backend("numpy"))
EPSILON = 2.0**-7


class Rounded(Draw):
    """Numbers that bfloat16 has, in any dtype that has them."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(NUMPY)
        self.of = dtype

    def __call__(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape).astype(BFLOAT16).astype(self.of)


def as_tuple(x: Any) -> tuple[Any, ...]:
    return () if x is None else x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("case", CASES)
def test_every_layer_keeps_it(case: str) -> None:
    draw = Rounded(BFLOAT16)
    layer, inputs = CASES[case](draw)
    outs = as_tuple(layer.forward(*inputs))
    gradients = as_tuple(layer.backward(*(draw(*out.shape) for out in outs)))
    assert {x.dtype for x in (*outs, *gradients, *layer.grads)} == {BFLOAT16}
    assert all(np.isfinite(x.astype(np.float32)).all() for x in (*outs, *gradients, *layer.grads))


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"causal": True},
        {"key_lengths": [3, 5]},
        {"grouped": True},
        {"dropout": 0.3, "seed": 0},
        {"keep_bytes": 0},
    ],
)
def test_attention_is_that_of_float32_rounded_once(option: dict[str, Any]) -> None:
    found = []
    for dtype in (BFLOAT16, np.float32):
        draw = Rounded(dtype)
        q, k, v, dout = (draw(2, 3, 5, 7) for _ in range(4))
        out, saved = F.attention(q, k, v, **option)
        found.append([out, *F.attention_backward(saved, dout)])
    for one, exact in zip(*found, strict=True):
        assert one.dtype == BFLOAT16
        assert largest_error(one.astype(np.float32), exact) < EPSILON


@pytest.mark.parametrize("name", ["gelu", "softmax", "relu"])
def test_functions_are_those_of_float32_rounded_once(name: str) -> None:
    pair = getattr(F, name), getattr(F, f"{name}_backward")
    found = []
    for dtype in (BFLOAT16, np.float32):
        draw = Rounded(dtype)
        out, saved = pair[0](draw(5, 101))
        found.append([out, pair[1](saved, draw(5, 101))])
    for one, exact in zip(*found, strict=True):
        assert largest_error(one.astype(np.float32), exact) < EPSILON


def test_integers_are_still_refused() -> None:
    with pytest.raises(TypeError, match="`q` must be floating point, got int64"):
        F.attention(*(np.ones((2, 3), int) for _ in range(3)))
    with pytest.raises(TypeError, match="`mask` must be boolean, got bfloat16"):
        F.additive_attention(*(np.ones((1, 2, 3)) for _ in range(3)), np.ones(3), mask=np.ones((1, 2), BFLOAT16))
    with pytest.raises(TypeError, match="`k` must have the dtype of q, bfloat16, got float32"):
        F.attention(np.ones((2, 3), BFLOAT16), *(np.ones((2, 3), np.float32) for _ in range(2)))
