"""Weights under the names that PyTorch gives them, from there and to there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import backend_of

from ..layers import (
    Affine,
    Embedding,
    FeedForward,
    Layer,
    LayerNorm,
    MultiHeadAttention,
    RMSNorm,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from ._stored import Stored, check, import_safetensors
from .transformer import Transformer

_KEEP = "attnlayers.save writes any layer to a file, and attnlayers.load reads it"


def load_torch(layer: Layer, source: Mapping[str, Any] | str | Path, *, prefix: str = "") -> None:
    """Overwrite the parameters of a layer with weights of its counterpart in PyTorch.

    Counterparts are ``torch.nn.MultiheadAttention``, ``TransformerEncoderLayer``, ``TransformerDecoderLayer``,
    ``TransformerEncoder``, ``TransformerDecoder``, ``LayerNorm``, ``RMSNorm``, ``Linear`` and ``Embedding``; that of
    `FeedForward` is a module with ``linear1`` and ``linear2``, that of `Transformer` one with ``encoder`` and
    ``decoder`` (as ``torch.nn.Transformer`` has them), ``source_embed``, ``target_embed`` and ``output``.

    Parameters
    ----------
    layer : Layer
        Made with the options of its counterpart, which a state dict does not tell: heads, ``pre_norm`` (PyTorch's
        ``norm_first``), activation, epsilon.
    source : mapping of str to array, or path
        A state dict, with arrays of PyTorch, NumPy or another library; or a safetensors file.
    prefix : str
        Read the names that begin with it, and no others: ``"encoder."`` of a ``torch.nn.Transformer``.

    Raises
    ------
    ValueError
        If names are missing or unknown, or a shape is another; nothing is overwritten then. If PyTorch has no
        counterpart: what to use is `attnlayers.load`.

    Examples
    --------
    >>> import numpy as np
    >>> from attnlayers import LayerNorm
    >>> layer = LayerNorm.create(2)
    >>> load_torch(layer, {"norm.weight": np.array([3.0, 5.0]), "norm.bias": np.zeros(2)}, prefix="norm.")
    >>> layer.params[0]
    array([3., 5.], dtype=float32)
    """
    state = _read_file(source) if isinstance(source, str | Path) else source
    entries = list(_entries(layer, prefix))
    given = {name: _on_host(value) for name, value in state.items() if name.startswith(prefix)}
    check(entries, {name: value.shape for name, value in given.items()})
    for entry in entries:
        entry.write(given[entry.name])


def to_torch(layer: Layer, path: str | Path | None = None, *, prefix: str = "") -> dict[str, np.ndarray]:
    """The parameters of a layer under the names, and in the shapes, of its counterpart in PyTorch.

    Parameters
    ----------
    layer : Layer
        One of those that `load_torch` knows.
    path : path, optional
        A safetensors file to write as well.
    prefix : str
        What names begin with.

    Returns
    -------
    dict of str to NumPy array
        ``module.load_state_dict({name: torch.tensor(array) for name, array in to_torch(layer).items()})`` takes it.

    Raises
    ------
    ValueError
        If the counterpart lacks something that the layer has: grouped heads, rotary positions, SwiGLU.
        `attnlayers.save` writes every layer.

    Examples
    --------
    >>> from attnlayers import MultiHeadAttention
    >>> {name: array.shape for name, array in to_torch(MultiHeadAttention.create(8, heads=2, use_bias=False)).items()}
    {'in_proj_weight': (24, 8), 'out_proj.weight': (8, 8)}
    """
    arrays = {entry.name: entry.read() for entry in _entries(layer, prefix)}
    if path is not None:
        import_safetensors().numpy.save_file(arrays, path)
    return arrays


def _entries(layer: Layer, prefix: str) -> Iterator[Stored]:
    """What a state dict has for a layer."""
    if isinstance(layer, MultiHeadAttention):
        yield from _of_attention(layer, prefix)
    elif isinstance(layer, Affine):
        yield Stored(f"{prefix}weight", (layer.params[0],), transposed=True)
        if len(layer.params) == 2:
            yield Stored(f"{prefix}bias", (layer.params[1],))
    elif isinstance(layer, Embedding | RMSNorm):
        yield Stored(f"{prefix}weight", (layer.params[0],))
    elif isinstance(layer, LayerNorm):
        for name, param in zip(("weight", "bias"), layer.params, strict=True):
            yield Stored(f"{prefix}{name}", (param,))
    else:
        for name, part in _parts(layer).items():
            yield from _entries(part, f"{prefix}{name}")


def _parts(layer: Layer) -> dict[str, Layer]:
    """Layers within a layer, under PyTorch's names."""
    if isinstance(layer, FeedForward):
        if layer.gate is not None:
            raise ValueError(f"PyTorch has no counterpart of a FeedForward with 'swiglu': {_KEEP}")
        return {"linear1.": layer.up, "linear2.": layer.down}
    if isinstance(layer, TransformerEncoderLayer):
        return {"self_attn.": layer.attention, "": layer.feed_forward} | _norms(layer, 2)
    if isinstance(layer, TransformerDecoderLayer):
        attentions = {"self_attn.": layer.self_attention, "multihead_attn.": layer.cross_attention}
        return attentions | {"": layer.feed_forward} | _norms(layer, 3)
    if isinstance(layer, TransformerEncoder | TransformerDecoder):
        return {f"layers.{i}.": part for i, part in enumerate(layer.stack)} | (
            {} if layer.norm is None else {"norm.": layer.norm}
        )
    if isinstance(layer, Transformer):
        return {f"{name}.": part for name, part in layer.layers.items() if part.params}
    raise ValueError(f"PyTorch's names are known for the layers of a Transformer, got {type(layer).__name__}: {_KEEP}")


def _norms(layer: Any, count: int) -> dict[str, Layer]:
    return {f"norm{i}.": layer.layers[f"norm{i}"] for i in range(1, count + 1)}


def _of_attention(layer: MultiHeadAttention, prefix: str) -> Iterator[Stored]:
    lacks = {
        f"key_heads={layer.key_heads}": layer.key_heads != layer.heads,
        f"rotary={layer.rotary!r}": layer.rotary is not None,
        f"window={layer.window}": layer.window is not None,
        f"softcap={layer.softcap}": layer.softcap is not None,
    }
    if any(lacks.values()):
        found = ", ".join(name for name, here in lacks.items() if here)
        raise ValueError(f"torch.nn.MultiheadAttention has no counterpart of {found}: {_KEEP}")
    three = layer.query, layer.key, layer.value
    weights, biases = [part.params[0] for part in three], [part.params[1] for part in three if len(part.params) == 2]
    if len(biases) not in (0, 3):
        raise ValueError(
            f"torch.nn.MultiheadAttention has biases of queries, keys and values or none, got {len(biases)}: {_KEEP}"
        )
    if weights[0].shape[0] == weights[1].shape[0]:
        yield Stored(f"{prefix}in_proj_weight", tuple(weights), transposed=True)
    else:
        for name, W in zip("qkv", weights, strict=True):
            yield Stored(f"{prefix}{name}_proj_weight", (W,), transposed=True)
    if biases:
        yield Stored(f"{prefix}in_proj_bias", tuple(biases))
    yield from _entries(layer.output, f"{prefix}out_proj.")


def _on_host(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else np.asarray(backend_of(value).to_numpy(value))


def _read_file(path: str | Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = import_safetensors().numpy.load_file(path)
    return arrays
