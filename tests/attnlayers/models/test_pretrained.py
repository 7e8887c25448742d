"""`CausalLM` against `transformers`, on tiny random models that the test makes; nothing is downloaded."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from attnbackends import get_backend
from attnlayers.models import CausalLM, WeightsError
from attnlayers.models._families import IGNORED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NUMPY = get_backend("numpy")
V, STEPS = 97, 64
LLAMA: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": None,
    "initializer_range": 0.2,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": V, "n_embd": 24, "n_head": 4, "n_layer": 2, "n_positions": 128, "bos_token_id": None,
    "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2, gelu, untied": (
        "GPT2", GPT2 | {"activation_function": "gelu", "tie_word_embeddings": False, "n_inner": 37}
    ),
    "llama": ("Llama", LLAMA),
    "llama, biases, tied": ("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, heads of 10": ("Llama", LLAMA | {"head_dim": 10, "rope_theta": 500000.0, "rms_norm_eps": 1e-5}),
    "mistral": ("Mistral", LLAMA | {"sliding_window": 7}),
    "mistral, no window": ("Mistral", LLAMA | {"sliding_window": None}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen2, tied": ("Qwen2", LLAMA | {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
}  # fmt: skip


def peer(name: str) -> Any:
    """The model of `transformers`, with weights large enough that every part matters."""
    family, options = CONFIGS[name]
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**options)
    kind = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim == 1:  # gains and biases
                param += 0.1 * torch.randn_like(param)
    return model


@pytest.fixture(params=CONFIGS)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, CausalLM]:
    theirs = peer(request.param)
    theirs.save_pretrained(tmp_path)
    return theirs, CausalLM.from_pretrained(tmp_path, backend=NUMPY)


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, shape)


def logits_of(theirs: Any, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    further = {}
    if mask is not None:
        positions = np.where(mask, np.cumsum(mask, axis=1) - 1, 0)
        further = {"attention_mask": torch.tensor(mask.astype(int)), "position_ids": torch.tensor(positions)}
    with torch.no_grad():
        found: np.ndarray = theirs(torch.tensor(ids), **further).logits.numpy()
    return found


def greedy_of(theirs: Any, ids: np.ndarray) -> np.ndarray:
    """What `transformers` adds; told that nothing is padding, or it takes that from the ids."""
    given = torch.tensor(ids)
    options = {"attention_mask": torch.ones_like(given), "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        found: np.ndarray = theirs.generate(given, **options).numpy()[:, ids.shape[1] :]
    return found


def test_logits(both: tuple[Any, CausalLM]) -> None:
    theirs, own = both
    ids = tokens(3, 31)
    np.testing.assert_allclose(own.forward(ids), logits_of(theirs, ids), atol=1e-5)
    own.step(ids, (caches := own.new_cache(3, 40)))
    more = tokens(3, 9, seed=1)
    whole = logits_of(theirs, np.concatenate((ids, more), axis=1))
    np.testing.assert_allclose(own.step(more, caches), whole[:, 31:], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_of_padded_prompts(both: tuple[Any, CausalLM], side: str) -> None:
    theirs, own = both
    ids, mask = tokens(3, 19), np.ones((3, 19), bool)
    for row, length in enumerate((5, 19, 12)):
        mask[row, slice(0, 19 - length) if side == "left" else slice(length, 19)] = False
    np.testing.assert_allclose(own.forward(ids, mask)[mask], logits_of(theirs, ids, mask)[mask], atol=1e-5)


def test_greedy_tokens(both: tuple[Any, CausalLM]) -> None:
    """64 steps: with a cache and without, in a batch and alone, prompts of one length and of several."""
    theirs, own = both
    ids = tokens(3, 11)
    expected = greedy_of(theirs, ids)
    assert expected.shape == (3, STEPS)
    assert np.array_equal(np.stack([*own.generate(ids, STEPS)], axis=1), expected)
    without = ids[:1]
    for _ in range(STEPS):
        without = np.concatenate((without, own.forward(without)[:, -1].argmax(-1)[:, None]), axis=1)
    assert np.array_equal(without[:, 11:], expected[:1])
    prompts = [ids[0], ids[1, :4], ids[2]]
    together = np.stack([*own.generate(prompts, STEPS)], axis=1)
    assert np.array_equal(together[[0, 2]], expected[[0, 2]])
    assert np.array_equal(together[1], greedy_of(theirs, ids[1:2, :4])[0])


def test_gradients(both: tuple[Any, CausalLM], tmp_path: Path) -> None:
    theirs, own = both
    ids, labels = tokens(3, 13), tokens(3, 13, seed=1)
    labels[1, 5:] = -1
    logits = theirs(torch.tensor(ids)).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.tensor(labels).reshape(-1), ignore_index=-1)
    loss.backward()
    np.testing.assert_allclose(float(own.loss(ids, labels)), float(loss.detach()), rtol=1e-6)
    own.loss_backward()
    for param, grad in zip(own.params, own.grads, strict=True):
        param[...] = grad  # written under their names, gradients are compared under their names
    own.save_pretrained(tmp_path / "gradients")
    found = load_file(tmp_path / "gradients" / "model.safetensors")
    named = dict(theirs.named_parameters())
    assert found.keys() == named.keys()
    for name, param in named.items():
        scale = float(param.grad.abs().max())
        np.testing.assert_allclose(found[name], param.grad.numpy(), atol=2e-5 * scale, err_msg=name)


def test_transformers_reads_what_is_written(both: tuple[Any, CausalLM], tmp_path: Path) -> None:
    theirs, own = both
    own.stop = (5, 7)
    own.save_pretrained(tmp_path / "written")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "written").eval()
    assert type(again) is type(theirs) or own.options["window"] is None  # a mistral without a window is a llama
    assert np.array_equal(logits_of(again, tokens(2, 9)), logits_of(theirs, tokens(2, 9)))
    back = CausalLM.from_pretrained(tmp_path / "written", backend=NUMPY)
    assert back.options == own.options
    assert back.stop == (5, 7)
    for one, other in zip(back.params, own.params, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_kept(tmp_path: Path, dtype: str) -> None:
    theirs = peer("qwen2").to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    own = CausalLM.from_pretrained(tmp_path, backend=NUMPY)
    assert {str(param.dtype) for param in own.params} == {dtype}
    wide = CausalLM.from_pretrained(tmp_path, dtype="float32", backend=NUMPY)
    assert {str(param.dtype) for param in wide.params} == {"float32"}
    ids = tokens(2, 15)
    # Read anew: a model that was cast has speeds of rotary positions in half precision.
    exact = logits_of(transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval(), ids)
    np.testing.assert_allclose(wide.forward(ids), exact, atol=1e-5 * np.abs(exact).max())
    half = own.forward(ids)
    unit = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert np.abs(half.astype(np.float32) - exact).max() < 16 * unit * np.abs(exact).max()


def test_sharded_files_and_names_without_prefix(tmp_path: Path) -> None:
    theirs = peer("gpt2")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    ids = tokens(2, 9)
    expected = logits_of(theirs, ids)
    np.testing.assert_allclose(CausalLM.from_pretrained(tmp_path).forward(ids), expected, atol=1e-5)
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(tmp_path / "config.json", plain)
    arrays = {name.removeprefix("transformer."): p.detach().numpy() for name, p in theirs.named_parameters()}
    arrays["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)  # the causal mask, as old files have it
    arrays["lm_head.weight"] = arrays["wte.weight"].copy()
    save_file(arrays, plain / "model.safetensors")
    np.testing.assert_allclose(CausalLM.from_pretrained(plain).forward(ids), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_memory_of_reading(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 1.2 times the weights, which here are small, so that a block is made small as well."""
    monkeypatch.setattr("attnlayers.models._stored.BLOCK_BYTES", 64 * 1024)
    wide = {"n_embd": 256, "n_head": 4} if name == "gpt2" else {"hidden_size": 256, "intermediate_size": 700}
    config = CONFIGS[name][1] | wide | {"vocab_size": 5000}
    made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(name, **config))
    made.save_pretrained(tmp_path)
    CausalLM.from_pretrained(tmp_path)  # what is imported at the first time is not counted
    tracemalloc.start()
    try:
        own = CausalLM.from_pretrained(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    weights = sum(param.nbytes for param in own.params)
    assert weights > 4e6
    assert peak < 1.2 * weights


# -- refused by name, before a weight is read


@pytest.mark.parametrize(
    ("name", "changed", "match"),
    [
        ("gpt2", {"model_type": "mamba"}, "model_type=.mamba., which is not known: known are gpt2, llama"),
        ("gpt2", {"model_type": None}, "model_type=None, which is not known"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "layer_idx=True, which is not supported"),
        ("gpt2", {"activation_function": "tanh"}, "activation_function=.tanh., which is not supported: known"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "not known for gpt2.*quantization_config"),
        ("gpt2", {"n_embd": "24"}, "must have a size 'n_embd' of 1 or more, got '24'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling of type 'yarn'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters of type 'llama3'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling of type 'linear'"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5, which is not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu', which is not supported"),
        ("llama", {"logit_scale": 2.0}, "options that are not known for llama.*logit_scale=2.0"),
        ("mistral", {"attention_bias": True}, "attention_bias=True, which is not supported"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True, which is not supported"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, name: str, changed: dict[str, Any], match: str) -> None:
    """There are no weights in the folder: whoever looked for them first would say so."""
    peer(name).config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(WeightsError, match=match) as caught:
        CausalLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_general_entries_of_a_configuration_are_known() -> None:
    """Those that today's `transformers` writes for every family, and that change no logit."""
    general = set(transformers.PreTrainedConfig().to_dict()) - {"tie_word_embeddings"}
    assert general - IGNORED == set()


def test_bad_folders(tmp_path: Path) -> None:
    theirs = peer("gpt2")
    with pytest.raises(WeightsError, match=r"config\.json is missing: .* is no folder of a model"):
        CausalLM.from_pretrained(tmp_path)
    theirs.config.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json$"):
        CausalLM.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is a pickle, which can run programs and is not read"):
        CausalLM.from_pretrained(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for content in (
        {},
        {"weight_map": {"a": 3}},
        {"weight_map": {"a": "../elsewhere.safetensors"}},
        {"weight_map": {}},
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=r"must have a 'weight_map'|must name files beside it"):
            CausalLM.from_pretrained(tmp_path)
    index.unlink()
    theirs.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    bias = whole.pop("transformer.ln_f.bias")
    save_file(whole | {"transformer.ln_f.bia": bias}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"unknown are transformer\.ln_f\.bia \(nearest: transformer\.ln_f\.bias\)"):
        CausalLM.from_pretrained(tmp_path)
    save_file(whole | {"transformer.ln_f.bias": bias[1:].copy()}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"`transformer\.ln_f\.bias` must have shape \(24,\) to fit the layer"):
        CausalLM.from_pretrained(tmp_path)
    integers = whole | {"transformer.ln_f.bias": np.ones(24, np.int8)}
    save_file(integers, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="has weights in I8, which is not supported"):
        CausalLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        CausalLM.from_pretrained(tmp_path)


def test_a_model_that_no_family_has(tmp_path: Path) -> None:
    own = CausalLM(11, 8, 2, 16, 1, norm="rms")
    with pytest.raises(
        WeightsError, match=r"none of gpt2, .* has a model with .*norm='rms'.*: attnlayers\.save writes it"
    ):
        own.save_pretrained(tmp_path)
    assert [*tmp_path.iterdir()] == []
