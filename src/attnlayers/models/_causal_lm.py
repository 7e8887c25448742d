"""The decoder-only Transformer: a language model that reads from left to right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attnbackends import Array, Backend

from .. import functional as F
from ..functional.checks import check
from ..layers import (
    Affine,
    Embedding,
    Initializer,
    KVCache,
    SoftmaxWithLoss,
    TimeDropout,
    TransformerEncoder,
)
from ..layers._composite import forget, set_training
from ._base import Network
from ._causal_layers import block_of, checked, norm_of
from ._generation import Prompts, generate


class _Saved(NamedTuple):
    head: Any
    positions: bool


class CausalLM(Network):
    """A stack of causal Transformer layers between token vectors and logits: GPT-2, Llama and their like.

    Parameters
    ----------
    vocab_size : int
        V.
    embedding_size, heads, hidden_size, depth : int
        Size of a token's vector, attention heads, size within a feed-forward network, and the number of layers.
    key_heads : int, optional
        Fewer key heads than query heads: consecutive query heads share one. Default: `heads`.
    head_size : int, optional
        Default: ``embedding_size / heads``.
    positions : {"learned", "rotary"}
        A vector for each position, or queries and keys that are turned by it.
    max_length : int
        Positions that there are; with rotary ones, the length that the model was trained with.
    rotary_base : float
    window : int, optional
        Tokens that a token sees, itself among them. Default: all before it.
    norm : {"layer", "rms"}
    epsilon : float
        Of the norms.
    activation : {"gelu", "gelu_tanh", "relu", "swiglu"}
    attention_bias : {"all", "qkv", "none"}
        Which projections of attention have biases.
    feed_forward_bias : bool
        Whether feed-forward networks have biases.
    tied : bool
        Whether logits are products with the token vectors, instead of an affine map of their own.
    dropout : float
        Share that is dropped of embeddings, of attention weights and of what is added to the residual stream.
    seed : int
        Of the initial weights, which are drawn on the host, and of what is dropped.
    dtype : str
        Of the weights: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``, as far as the library has them.
    backend : Backend, optional
        Default: the one that the environment chose.
    initializer : Initializer, optional
        A source of weights, instead of `dtype` and `backend`.

    Attributes
    ----------
    options : dict
        The parameters above, from `vocab_size` to `dropout`.
    tokenizer : tokenizers.Tokenizer or None
        What `from_pretrained` found.
    stop : tuple of int
        Tokens that end a text, as `from_pretrained` found them.
    training : bool
        False drops nothing in `forward` and `loss`; `generate` never drops.

    References
    ----------
    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023.

    Examples
    --------
    >>> model = CausalLM(11, embedding_size=8, heads=2, hidden_size=16, depth=1, max_length=16)
    >>> ids = np.stack([*model.generate([[3, 4, 5], [6]], max_tokens=4)], axis=1)
    >>> ids.shape
    (2, 4)
    """

    training = True

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        heads: int,
        hidden_size: int,
        depth: int,
        *,
        key_heads: int | None = None,
        head_size: int | None = None,
        positions: str = "learned",
        max_length: int = 1024,
        rotary_base: float = 10000.0,
        window: int | None = None,
        norm: str = "layer",
        epsilon: float = 1e-5,
        activation: str = "gelu_tanh",
        attention_bias: str = "all",
        feed_forward_bias: bool = True,
        tied: bool = True,
        dropout: float = 0.0,
        seed: int = 0,
        dtype: str = "float32",
        backend: Backend | None = None,
        initializer: Initializer | None = None,
    ) -> None:
        draw = Initializer(seed, dtype, backend) if initializer is None else initializer
        o = self.options = checked(
            {
                "vocab_size": vocab_size, "embedding_size": embedding_size, "heads": heads, "hidden_size": hidden_size,
                "depth": depth, "key_heads": key_heads, "head_size": head_size, "positions": positions,
                "max_length": max_length, "rotary_base": rotary_base, "window": window, "norm": norm,
                "epsilon": epsilon, "activation": activation, "attention_bias": attention_bias,
                "feed_forward_bias": feed_forward_bias, "tied": tied, "dropout": dropout,
            }
        )  # fmt: skip
        self.embed = Embedding(draw.normal(o["vocab_size"], o["embedding_size"], usual=0.02))
        self.positions = (
            Embedding(draw.normal(o["max_length"], o["embedding_size"], usual=0.02))
            if o["positions"] == "learned"
            else None
        )
        self.blocks = TransformerEncoder([block_of(o, draw) for _ in range(o["depth"])], norm_of(o, draw))
        self.head = None if tied else Affine(draw.matrix(o["embedding_size"], o["vocab_size"], usual=0.02))
        self.dropout = TimeDropout(dropout)
        self.softmax = SoftmaxWithLoss()
        self.tokenizer: Any = None
        self.stop: tuple[int, ...] = ()
        parts = {"embed": self.embed, "positions": self.positions, "blocks": self.blocks, "head": self.head}
        super().__init__(
            draw.backend, **{name: part for name, part in parts.items() if part is not None}, dropout=self.dropout
        )
        self.reseed(seed)

    # -- all at once

    def forward(self, ids: Array, mask: Array | None = None) -> Array:
        """Logits of what follows each token.

        Parameters
        ----------
        ids : integer array (N, T)
        mask : boolean array (N, T), optional
            False where `ids` is padding, on the left or on the right: tokens have the positions that they have without
            it. Logits at padding mean nothing.

        Returns
        -------
        array (N, T, V)
        """
        check(ids=(ids, "N T: int"), mask=(mask, "N T: bool"))
        set_training(self, self.training)
        x = self.dropout.forward(self._embedded(ids, 0, mask))
        logits, head = self._logits(self.blocks.forward(x, mask, causal=True))
        self._saved = _Saved(head, self.positions is not None)
        return logits

    def backward(self, dlogits: Array) -> None:
        """dlogits (N, T, V) -> None, since ids have no gradient; writes those of all parameters."""
        saved: _Saved = self.saved()
        if self.head is None:
            d, dW = F.affine_backward(saved.head, dlogits)
        else:
            d = self.head.backward(dlogits)
        d = self.dropout.backward(self.blocks.backward(d))
        self.embed.backward(d)
        if self.head is None:
            self.embed.grads[0] += self.backend.xp.matrix_transpose(dW)
        if self.positions is not None:
            self.positions.backward(d)

    def loss(self, ids: Array, labels: Array, mask: Array | None = None) -> Array:
        """Mean cross-entropy of predicting `labels`, in nats for each token.

        Parameters
        ----------
        ids : integer array (N, T)
        labels : integer array (N, T)
            What follows each token: ``ids`` one step ahead. -1 does not count.
        mask : boolean array (N, T), optional
            As in `forward`.

        Returns
        -------
        loss : array ()
            On the device.
        """
        return self.softmax.forward(self.forward(ids, mask), labels)

    def loss_backward(self, dout: float = 1.0) -> None:
        """Gradients of all parameters, after `loss`."""
        self.backward(self.softmax.backward(dout))

    def _embedded(self, ids: Array, start: int, mask: Array | None) -> Array:
        """ids (N, T), which begin at the step `start`; mask (N, start + T) -> (N, T, D)."""
        x = self.embed.forward(ids)
        if self.positions is None:
            return x
        N, T = ids.shape
        places = np.broadcast_to(start + np.arange(T), (N, T))
        if mask is not None:
            valid = self.backend.to_numpy(mask)
            places = np.where(valid, np.cumsum(valid, axis=1) - 1, 0)[:, start:]
        last = int(places.max()) if places.size else 0
        if last >= self.options["max_length"]:
            raise ValueError(
                f"the model has positions 0 .. {self.options['max_length'] - 1}, got a token at {last}: pass fewer"
            )
        return x + self.positions.forward(self.backend.asarray(places, like=ids))

    def _logits(self, x: Array) -> tuple[Array, Any]:
        if self.head is not None:
            return self.head.forward(x), None
        return F.affine(x, self.backend.xp.matrix_transpose(self.embed.params[0]))

    @property
    def attention_weights(self) -> dict[str, Array]:
        """``decoder``, the self-attention of the last forward: (N, layers, heads, T, T)."""
        of_layers = [layer.attention.attention_weights for layer in self.blocks.stack]
        return {"decoder": self.backend.xp.stack(of_layers, axis=1)}

    # -- step by step

    def new_cache(self, batch_size: int, capacity: int) -> list[KVCache]:
        """Empty caches for `step`, one for each layer."""
        return self.blocks.new_cache(batch_size, capacity)

    def step(self, ids: Array, caches: Sequence[KVCache], mask: Array | None = None, *, last: bool = False) -> Array:
        """Go on by one token or more, without backward.

        Parameters
        ----------
        ids : integer array (N, T)
        caches : from `new_cache`
        mask : boolean array (N, all steps so far), optional
            As in `forward`.
        last : bool
            Whether the logits of the last token are all that is wanted.

        Returns
        -------
        array (N, T, V), or (N, 1, V) with `last`
        """
        check(ids=(ids, "N T: int"), mask=(mask, "N T_all: bool"))
        logits, _ = self._logits(self.blocks.finish(self._advance(ids, caches, mask, last)))
        forget(self)
        return logits

    def _advance(self, ids: Array, caches: Sequence[KVCache], mask: Array | None, last: bool) -> Array:
        """Go on without logits: ids (N, T) -> (N, T, D), or (N, 1, D) with `last`."""
        x = self._embedded(ids, caches[0].length, mask)
        *_, top = self.blocks.stack
        for layer, cache in zip(self.blocks.stack, caches, strict=True):
            x = layer.step(x, cache, mask, last=1 if last and layer is top else None)
            if ids.shape[1] > 1:  # a long prompt leaves more behind in all layers than the weights take
                forget(layer)
        return x

    def generate(
        self,
        prompts: Prompts,
        max_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] = 0,
        stop: Sequence[int] | None = None,
    ) -> Iterator[np.ndarray]:
        """Go on with a batch of prompts, token by token.

        Parameters
        ----------
        prompts : integer array (N, T), or sequences of ids of any lengths
        max_tokens : int
            Tokens to add at most.
        temperature : float
            Logits are divided by it before a token is drawn; 0 takes the most probable one.
        top_k : int, optional
            Draw from the `top_k` most probable tokens.
        top_p : float, optional
            Draw from the fewest tokens, most probable first, that have this probability together (nucleus sampling).
        seed : int, or one for each prompt
            With one seed, what prompt i draws is a function of the seed and i, whatever the other prompts are.
        stop : sequence of int, optional
            Tokens that end a text. Default: the attribute `stop`.

        Yields
        ------
        ids : int64 NumPy array (N,)
            The next token of each prompt, a token of `stop` included; -1 after it.

        Raises
        ------
        ValueError
            For an empty prompt, more tokens than there are learned positions, or an option out of its range; by the
            call, before the first token.

        References
        ----------
        Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020 (`top_p`).
        """
        return generate(self, prompts, max_tokens, temperature, top_k, top_p, seed, stop)

    # -- folders

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, dtype: str | None = None, backend: Backend | None = None
    ) -> CausalLM:
        """The model of a folder as `transformers` writes it.

        Parameters
        ----------
        folder : path
            With ``config.json``, ``model.safetensors`` or ``model.safetensors.index.json`` and what that names, and
            optionally ``tokenizer.json`` and ``generation_config.json``. Nothing is downloaded.
        dtype : str, optional
            Of the weights. Default: the one that they have.
        backend : Backend, optional
            Default: the one that the environment chose.

        Raises
        ------
        WeightsError
            For a family other than gpt2, llama, mistral and qwen2, an option that is not known or not supported, or
            files that are missing, damaged or of another shape.
        """
        from ._pretrained import read

        model: CausalLM = read(cls, Path(folder), dtype, backend)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `transformers` and `from_pretrained` read; each file is replaced as a whole.

        Raises
        ------
        WeightsError
            If none of the four families has the options of the model.
        """
        from ._pretrained import write

        write(self, Path(folder))
