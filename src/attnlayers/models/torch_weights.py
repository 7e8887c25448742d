"""Weights under the names that PyTorch gives them, from there and to there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from attnbackends import Array, backend_of

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
from .transformer import Transformer


@dataclass(frozen=True)
class _Entry:
    """One array of a state dict: parameters of a layer, one below the other, each transposed where it is a matrix."""

    name: str
    params: tuple[Array, ...]
    transposed: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [tuple(p.shape)[::-1] if self.transposed else tuple(p.shape) for p in self.params]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def read(self) -> np.ndarray:
        """What PyTorch has under the name."""
        host = [np.asarray(backend_of(p).to_numpy(p)) for p in self.params]
        return np.concatenate([a.T if self.transposed else a for a in host])

    def write(self, values: np.ndarray) -> None:
        """Overwrite the parameters."""
        lengths = [p.shape[-1] if self.transposed else p.shape[0] for p in self.params]
        for param, (a, b) in zip(self.params, pairwise(accumulate(lengths, initial=0)), strict=True):
            part = values[a:b].T if self.transposed else values[a:b]
            param[...] = backend_of(param).asarray(np.ascontiguousarray(part), dtype=param.dtype, like=param)


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
        If names are missing or unknown, or a shape is another; nothing is overwritten then.

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
    entries = {entry.name: entry for entry in _entries(layer, prefix)}
    given = {name: value for name, value in state.items() if name.startswith(prefix)}
    _check_names(entries, given)
    values = {name: _on_host(given[name]) for name in entries}
    for name, entry in entries.items():
        if values[name].shape != entry.shape:
            raise ValueError(
                f"`{name}` must have shape {entry.shape} to fit the layer, got {values[name].shape}: "
                "make the layer with the sizes of the weights"
            )
    for name, entry in entries.items():
        entry.write(values[name])


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

    Examples
    --------
    >>> from attnlayers import MultiHeadAttention
    >>> {name: array.shape for name, array in to_torch(MultiHeadAttention.create(8, heads=2, use_bias=False)).items()}
    {'in_proj_weight': (24, 8), 'out_proj.weight': (8, 8)}
    """
    arrays = {entry.name: np.array(entry.read()) for entry in _entries(layer, prefix)}
    if path is not None:
        _safetensors().numpy.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    return arrays


def _entries(layer: Layer, prefix: str) -> Iterator[_Entry]:
    """What a state dict has for a layer."""
    if isinstance(layer, MultiHeadAttention):
        yield from _of_attention(layer, prefix)
    elif isinstance(layer, Affine):
        yield _Entry(f"{prefix}weight", (layer.params[0],))
        if len(layer.params) == 2:
            yield _Entry(f"{prefix}bias", (layer.params[1],), transposed=False)
    elif isinstance(layer, Embedding | RMSNorm):
        yield _Entry(f"{prefix}weight", (layer.params[0],), transposed=False)
    elif isinstance(layer, LayerNorm):
        for name, param in zip(("weight", "bias"), layer.params, strict=True):
            yield _Entry(f"{prefix}{name}", (param,), transposed=False)
    else:
        for name, part in _parts(layer).items():
            yield from _entries(part, f"{prefix}{name}")


def _parts(layer: Layer) -> dict[str, Layer]:
    """Layers within a layer, under PyTorch's names."""
    if isinstance(layer, FeedForward):
        if layer.gate is not None:
            raise ValueError("PyTorch has no counterpart of a FeedForward with 'swiglu': use gelu or relu")
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
    raise ValueError(f"PyTorch's names are known for the layers of a Transformer, got {type(layer).__name__}")


def _norms(layer: Any, count: int) -> dict[str, Layer]:
    return {f"norm{i}.": layer.layers[f"norm{i}"] for i in range(1, count + 1)}


def _of_attention(layer: MultiHeadAttention, prefix: str) -> Iterator[_Entry]:
    lacks = {
        f"key_heads={layer.key_heads}": layer.key_heads != layer.heads,
        f"rotary={layer.rotary!r}": layer.rotary is not None,
        f"window={layer.window}": layer.window is not None,
        f"softcap={layer.softcap}": layer.softcap is not None,
    }
    if any(lacks.values()):
        found = ", ".join(name for name, here in lacks.items() if here)
        raise ValueError(f"torch.nn.MultiheadAttention has no counterpart of {found}")
    three = layer.query, layer.key, layer.value
    weights, biases = [part.params[0] for part in three], [part.params[1] for part in three if len(part.params) == 2]
    if len(biases) not in (0, 3):
        raise ValueError(
            f"torch.nn.MultiheadAttention has biases of queries, keys and values or none, got {len(biases)}"
        )
    if weights[0].shape[0] == weights[1].shape[0]:
        yield _Entry(f"{prefix}in_proj_weight", tuple(weights))
    else:
        for name, W in zip("qkv", weights, strict=True):
            yield _Entry(f"{prefix}{name}_proj_weight", (W,))
    if biases:
        yield _Entry(f"{prefix}in_proj_bias", tuple(biases), transposed=False)
    yield from _entries(layer.output, f"{prefix}out_proj.")


def _check_names(known: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    unknown, missing = sorted(given.keys() - known.keys()), sorted(known.keys() - given.keys())
    parts = []
    if unknown:
        nearest = [get_close_matches(name, list(known), n=1, cutoff=0.0) for name in unknown]
        listed = ", ".join(f"{name} (nearest: {near[0]})" for name, near in zip(unknown, nearest, strict=True))
        parts.append(f"unknown are {listed}")
    if missing:
        parts.append(f"missing are {', '.join(missing)}")
    if parts:
        raise ValueError(f"these are the weights of another layer: {'; '.join(parts)}")


def _on_host(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else np.asarray(backend_of(value).to_numpy(value))


def _read_file(path: str | Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = _safetensors().numpy.load_file(path)
    return arrays


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("safetensors files need safetensors: pip install 'attnlayers[train]'") from error
    return safetensors
