"""`CausalLM` by itself: gradients, caches, padding, and what `generate` draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

from attnbackends import get_backend
from attnlayers import TransformerEncoderLayer, gradcheck
from attnlayers.models import CausalLM, WeightsError
from attnlayers.models._sampling import Sampler

NUMPY = get_backend("numpy")
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gelu, untied, unbiased": {"activation": "gelu", "tied": False, "attention_bias": "none"},
    "llama": {
        "key_heads": 1, "positions": "rotary", "norm": "rms", "activation": "swiglu", "attention_bias": "none",
        "feed_forward_bias": False, "tied": False,
    },
    "mistral": {
        "key_heads": 2, "head_size": 6, "positions": "rotary", "norm": "rms", "activation": "swiglu", "window": 3,
    },
    "qwen2": {"positions": "rotary", "norm": "rms", "activation": "swiglu", "attention_bias": "qkv"},
}  # fmt: skip


def model(kind: str, dtype: str = "float64", **further: Any) -> CausalLM:
    options = {"key_heads": None, "max_length": 23, "seed": 5, "dtype": dtype, "backend": NUMPY} | KINDS[kind] | further
    made = CausalLM(11, 8, 2, 13, 2, **options)
    rng = np.random.default_rng(1)
    for param in made.params:  # large enough to make every part matter, biases and gains among them
        param[...] = param + 0.3 * rng.standard_normal(param.shape)
    return made


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_gradients(kind: str, padding: str) -> None:
    ids, mask = tokens(3, 5), np.ones((3, 5), bool)
    mask[1, {"none": slice(0), "left": slice(2), "right": slice(3, 5)}[padding]] = False

    class Valid:
        """The model, with logits at padding left out."""

        def __init__(self, inner: CausalLM) -> None:
            self.inner, self.params, self.names = inner, inner.params, inner.names

        @property
        def grads(self) -> list[Any]:
            return self.inner.grads

        def forward(self) -> Any:
            return self.inner.forward(ids, None if padding == "none" else mask) * mask[..., None]

        def backward(self, dout: Any) -> None:
            self.inner.backward(dout * mask[..., None])

    errors = gradcheck(Valid(model(kind)))
    assert len(errors) == len(model(kind).params)


def test_gradient_of_the_loss() -> None:
    labels = tokens(2, 5, seed=1)
    labels[0, 3:] = -1

    class Loss:
        def __init__(self, inner: CausalLM) -> None:
            self.inner, self.params, self.names = inner, inner.params, inner.names

        @property
        def grads(self) -> list[Any]:
            return self.inner.grads

        def forward(self) -> Any:
            return self.inner.loss(tokens(2, 5), labels)

        def backward(self, dout: Any) -> None:
            self.inner.loss_backward(dout)

    gradcheck(Loss(model("gpt2")))


def test_gradients_with_dropout() -> None:
    class Dropping:
        def __init__(self, inner: CausalLM) -> None:
            self.inner, self.params, self.names = inner, inner.params, inner.names

        @property
        def grads(self) -> list[Any]:
            return self.inner.grads

        def forward(self) -> Any:
            return self.inner.forward(tokens(2, 5))

        def backward(self, dout: Any) -> None:
            self.inner.backward(dout)

    own = model("llama", dropout=0.3)
    gradcheck(Dropping(own))
    own.training = False
    first = own.forward(tokens(2, 5))
    assert np.array_equal(first, own.forward(tokens(2, 5)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(kind: str, side: str) -> None:
    own, ids = model(kind), tokens(1, 5)
    padded, mask = tokens(2, 9, seed=3), np.ones((2, 9), bool)
    place = slice(4, 9) if side == "left" else slice(0, 5)
    padded[0, place] = ids[0]
    mask[0] = False
    mask[0, place] = True
    np.testing.assert_allclose(own.forward(padded, mask)[0, place], own.forward(ids)[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(own.forward(padded, mask)[1], own.forward(padded[1:])[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_forward(kind: str) -> None:
    own, ids = model(kind), tokens(3, 9)
    caches = own.new_cache(3, 9)
    parts = [own.step(part, caches) for part in np.split(ids, [4, 5, 6, 8], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), own.forward(ids), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_last_steps_of_a_layer(pre_norm: bool) -> None:
    layer = TransformerEncoderLayer.create(8, 2, 16, pre_norm=pre_norm, seed=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((3, 5, 8))
    full, cache = layer.forward(x, causal=True), layer.new_cache(3, 5)
    for part, last in ((slice(0, 3), 2), (slice(3, 5), 7)):
        found = layer.step(x[:, part], cache, last=last)
        np.testing.assert_allclose(found, full[:, part][:, -last:], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("last", [None, 1, 299])
@pytest.mark.parametrize("pre_norm", [True, False])
def test_many_steps_of_a_layer_go_in_pieces(pre_norm: bool, last: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = TransformerEncoderLayer.create(64, 2, 96, pre_norm=pre_norm, seed=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 300, 64))
    full, rows = layer.forward(x, causal=True), []
    forward = type(layer.feed_forward).forward
    monkeypatch.setattr(
        type(layer.feed_forward), "forward", lambda self, h: (rows.append(h.shape[:2]), forward(self, h))[1]
    )
    found = layer.step(x, layer.new_cache(2, 300), last=last)
    np.testing.assert_allclose(found, full if last is None else full[:, -last:], rtol=1e-11, atol=1e-13)
    assert sorted(rows) == {None: [(1, 300)] * 2, 1: [(2, 1)], 299: [(1, 299)] * 2}[last]


@pytest.mark.parametrize("kind", KINDS)
def test_generate_is_argmax_of_forward(kind: str) -> None:
    own, ids = model(kind), tokens(3, 4)
    found = np.stack([*own.generate(ids, 12)], axis=1)
    for _ in range(12):
        ids = np.concatenate((ids, own.forward(ids)[:, -1].argmax(-1)[:, None]), axis=1)
    assert np.array_equal(found, ids[:, 4:])


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    kind=st.sampled_from(sorted(KINDS)),
    options=st.sampled_from(
        [{}, {"temperature": 0.7}, {"temperature": 1.5, "top_k": 4}, {"temperature": 1, "top_p": 0.8}]
    ),
    seed=st.integers(0, 9),
)
def test_a_prompt_goes_on_as_it_does_alone(lengths: list[int], kind: str, options: Any, seed: int) -> None:
    own = model(kind)
    prompts = [tokens(length, seed=place) for place, length in enumerate(lengths)]
    seeds = [seed + place for place in range(len(prompts))]
    together = np.stack([*own.generate(prompts, 6, seed=seeds, **options)], axis=1)
    for place, prompt in enumerate(prompts):
        alone = np.stack([*own.generate([prompt], 6, seed=[seeds[place]], **options)], axis=1)
        assert np.array_equal(together[place], alone[0])
    again = np.stack([*own.generate(prompts, 6, seed=seed, **options)], axis=1)
    others = [prompts[0], *([3, 1] for _ in prompts[1:])]
    assert np.array_equal(np.stack([*own.generate(others, 6, seed=seed, **options)], axis=1)[0], again[0])


@pytest.mark.parametrize("at_once", [1, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_long_prompts_go_in_parts(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own, prompts = model(kind), [tokens(length, seed=length) for length in (13, 2, 7, 12)]
    expected = np.stack([*own.generate(prompts, 6)], axis=1)
    monkeypatch.setattr("attnlayers.models._generation.TOKENS_AT_ONCE", 4 * at_once)
    monkeypatch.setattr("attnlayers.models._generation.LEAST_AT_ONCE", 1)
    lengths: list[int] = []
    advance = CausalLM._advance
    monkeypatch.setattr(
        CausalLM,
        "_advance",
        lambda self, ids, *further: (lengths.append(ids.shape[1]), advance(self, ids, *further))[1],
    )
    assert np.array_equal(np.stack([*own.generate(prompts, 6)], axis=1), expected)
    assert sum(lengths) == 13 + 5
    assert max(lengths) == at_once


def test_stop_tokens_end_their_prompt_alone() -> None:
    own, ids = model("gpt2"), tokens(3, 4)
    free = np.stack([*own.generate(ids, 12)], axis=1)
    stop = [int(free[0, 3])]
    found = np.stack([*own.generate(ids, 12, stop=stop)], axis=1)
    for row, whole in zip(found, free, strict=True):
        (ends,) = np.nonzero(whole == stop[0])
        end = ends[0] if ends.size else len(whole)
        assert np.array_equal(row[: end + 1], whole[: min(end + 1, found.shape[1])][: len(row)])
        assert np.all(row[end + 1 :] == -1)
    own.stop = tuple(range(11))
    assert len([*own.generate(ids, 12)]) == 1


def test_tokens_come_one_by_one() -> None:
    stream = model("gpt2").generate([[3, 4], [5]], 8)
    assert next(stream).shape == (2,)
    stream.close()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_close(kind: str, dtype: str) -> None:
    wide, own, ids = model(kind, "float32"), model(kind, dtype), tokens(2, 7)
    for param, other in zip(own.params, wide.params, strict=True):
        other[...] = param.astype(np.float32)
    expected, logits = wide.forward(ids), own.forward(ids)
    assert str(logits.dtype) == dtype
    own.backward(logits)
    assert all(str(grad.dtype) == dtype for grad in own.grads)
    unit = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert np.abs(logits.astype(np.float32) - expected).max() < 12 * unit * np.abs(expected).max()
    assert len([*own.generate(ids, 3)]) == 3


def test_other_libraries(library: Library) -> None:
    """The same numbers wherever the model lives."""
    own = CausalLM(11, 8, 2, 13, 1, seed=2, dtype="float64", backend=library.backend)
    ref = CausalLM(11, 8, 2, 13, 1, seed=2, dtype="float64", backend=NUMPY)
    ids = tokens(2, 5)
    np.testing.assert_allclose(library.numpy(own.forward(library.array(ids))), ref.forward(ids), rtol=1e-9, atol=1e-12)
    prompts = [[3, 4, 5], [6]]
    assert np.array_equal(
        np.stack([*own.generate(prompts, 4, temperature=1.0)]), np.stack([*ref.generate(prompts, 4, temperature=1.0)])
    )
    own.loss(library.array(ids), library.array(tokens(2, 5, seed=1)))
    own.loss_backward()
    ref.loss(ids, tokens(2, 5, seed=1))
    ref.loss_backward()
    for grad, other in zip(own.grads, ref.grads, strict=True):
        np.testing.assert_allclose(library.numpy(grad), other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_folders_go_between_libraries(library: Library, tmp_path: Path, kind: str) -> None:
    """Written on the host, read by another library, written there and read on the host: the same bits."""
    own = model(kind, "float32")
    own.save_pretrained(tmp_path / "host")
    there = CausalLM.from_pretrained(tmp_path / "host", backend=library.backend)
    ids = tokens(2, 5)
    np.testing.assert_allclose(library.numpy(there.forward(library.array(ids))), own.forward(ids), rtol=1e-4, atol=1e-5)
    prompts = [[3, 4, 5], [6]]
    assert np.array_equal(np.stack([*there.generate(prompts, 4)]), np.stack([*own.generate(prompts, 4)]))
    there.save_pretrained(tmp_path / "there")
    back = CausalLM.from_pretrained(tmp_path / "there", backend=NUMPY)
    assert back.options == own.options
    for one, other in zip(back.params, own.params, strict=True):
        assert np.array_equal(one, other)


_ANY: dict[str, Any] = {
    "key_heads": st.sampled_from([1, 2, 4]), "head_size": st.sampled_from([2, 4]),
    "positions": st.sampled_from(["learned", "rotary"]), "window": st.none() | st.integers(1, 9),
    "norm": st.sampled_from(["layer", "rms"]), "epsilon": st.sampled_from([1e-6, 0.25]),
    "activation": st.sampled_from(["gelu", "gelu_tanh", "relu", "swiglu"]), "tied": st.booleans(),
    "attention_bias": st.sampled_from(["all", "qkv", "none"]), "feed_forward_bias": st.booleans(),
    "rotary_base": st.sampled_from([1e4, 5e5]), "dtype": st.sampled_from(["float32", "float16", "bfloat16"]),
}  # fmt: skip
_GPT2 = {
    "key_heads": 4, "head_size": 2, "positions": "learned", "window": None, "norm": "layer", "attention_bias": "all",
    "feed_forward_bias": True,
}  # fmt: skip
_LLAMA = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "feed_forward_bias": False}
_OPTIONS = st.one_of(
    *(st.fixed_dictionaries(_ANY | {name: st.just(one) for name, one in own.items()}) for own in ({}, _GPT2, _LLAMA))
)


@settings(deadline=None, max_examples=60)
@given(options=_OPTIONS)
def test_a_folder_holds_the_whole_model_or_is_refused(tmp_path_factory: Any, options: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("model")
    own = CausalLM(11, 8, 4, 13, 2, max_length=23, backend=NUMPY, **options)
    try:
        own.save_pretrained(folder)
    except WeightsError:
        assert [*folder.iterdir()] == []
        return
    back = CausalLM.from_pretrained(folder, backend=NUMPY)
    if own.positions is not None:  # the base of positions that are not there
        back.options["rotary_base"] = own.options["rotary_base"]
    assert back.options == own.options
    assert [p.tobytes() for p in back.params] == [p.tobytes() for p in own.params]
    assert np.array_equal(back.forward(tokens(1, 5)), own.forward(tokens(1, 5)))


# -- sampling

_LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=9).map(np.array)


@settings(deadline=None)
@given(logits=_LOGITS, top_k=st.none() | st.integers(1, 12), top_p=st.none() | st.floats(0.01, 1), t=st.floats(0.01, 9))
def test_what_may_be_drawn(logits: np.ndarray, top_k: int | None, top_p: float | None, t: float) -> None:
    drawn = Sampler(t, top_k, top_p, 0, 200)(np.repeat(logits[None], 200, axis=0))
    assert drawn.min() >= 0
    assert drawn.max() < len(logits)
    if top_k is not None and top_k < len(logits):
        assert logits[drawn].min() >= np.sort(logits)[-top_k]
    if top_p is not None:
        shares = np.exp((logits - logits.max()) / t)
        shares /= shares.sum()
        for one in set(drawn.tolist()):
            assert shares[shares > shares[one]].sum() < top_p + 1e-9  # what is more probable does not suffice


def test_shares_of_what_is_drawn() -> None:
    logits, rows = np.log([0.1, 0.2, 0.3, 0.4]), 40_000
    for options, shares in (
        ((1.0, None, None), [0.1, 0.2, 0.3, 0.4]),
        ((1.0, 2, None), [0, 0, 3 / 7, 4 / 7]),
        ((1.0, None, 0.6), [0, 0, 3 / 7, 4 / 7]),
        ((0.5, None, None), np.array([1, 4, 9, 16]) / 30),
    ):
        found = np.bincount(Sampler(*options, 7, rows)(np.repeat(logits[None], rows, axis=0)), minlength=4) / rows
        np.testing.assert_allclose(found, shares, atol=4 * 0.5 / rows**0.5)


# -- bad arguments


def test_errors() -> None:
    own = model("gpt2")
    for match, prompts, options in (
        (r"prompt 1 must be a sequence of one token id or more", [[3], []], {}),
        (r"ids must lie in 0 \.\. 10, got 11 \.\. 11 in prompt 0", [[11]], {}),
        (r"ids must lie in 0 \.\. 10, got -1", [[-1]], {}),
        (r"prompt 0 must be a sequence of one token id or more, got float64", [[1.0]], {}),
        (r"has 23 positions, got a prompt of 3 tokens and max_tokens=22: ask for 21", [[1, 2, 3]], {"max_tokens": 22}),
        (r"`temperature` must be 0 or more", [[1]], {"temperature": -1}),
        (r"`top_p` must lie in \(0, 1\]", [[1]], {"top_p": 0}),
        (r"`top_k` must be 1 or more", [[1]], {"top_k": 0}),
        (r"`seed` must be a number or one for each of 1 prompts", [[1]], {"seed": [1, 2]}),
    ):
        with pytest.raises(ValueError, match=match):
            own.generate(prompts, **{"max_tokens": 3} | options)
    assert len([*own.generate([[1, 2, 3]], 21)]) == 21
    with pytest.raises(ValueError, match=r"has positions 0 \.\. 22, got a token at 23"):
        own.forward(tokens(1, 24))
    with pytest.raises(ValueError, match="`norm` must be one of layer, rms"):
        CausalLM(11, 8, 2, 13, 1, norm="batch")
    with pytest.raises(
        ValueError, match="`embedding_size` must be a multiple of `heads`, got 8 and 3: or give `head_size`"
    ):
        CausalLM(11, 8, 3, 13, 1)
    own.params[0][...] = np.nan
    with pytest.raises(ValueError, match="the logits must be finite"):
        [*own.generate([[1]], 2, temperature=1.0)]
