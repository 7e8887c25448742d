"""Attention in several heads, over a sequence itself or over another one, and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, Unpack

import numpy as np

from attnbackends import Array

from .. import functional as F
from ..functional.arrays import or_zero
from ..functional.checks import broadcasts, check
from ..functional.integers import integer, sides, sizes
from ._composite import Composite
from ._heads import check_heads, merge, split
from .affine import Affine
from .initializer import Drawing, Initializer
from .kv_cache import KVCache


class _Saved(NamedTuple):
    attention: Any
    rotary: tuple[Any, Any] | None
    cross: bool
    biased: bool


class MultiHeadAttention(Composite):
    """Queries, keys and values projected for several heads, attention in each, and one projection of them all.

    Parameters
    ----------
    Wq : array (D, heads * D_head)
    Wk : array (D_context, key_heads * D_head)
    Wv : array (D_context, key_heads * D_value)
    Wo : array (heads * D_value, D_out)
    bq, bk, bv, bo : array, optional
        Biases of the four.
    heads : int
    key_heads : int, optional
        Fewer key heads than query heads: consecutive query heads share one (grouped, or multi-query attention).
    rotary : {"half", "interleaved"}, optional
        Turn queries and keys by their positions; which features make a pair.
    rotary_base : float
    window : (int or None, int or None), optional
        How many keys before and after its position a query sees.
    softcap : float, optional
        Cap on scores.
    dropout : float
        Share of the weights that are dropped while training.
    seed : int
        Seed of what is dropped.

    Attributes
    ----------
    training : bool
        False drops nothing.
    dbias : array or None
        Gradient of `bias`, from the last backward that was asked for it.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2.
    Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models", 2023.

    Examples
    --------
    >>> import numpy as np
    >>> layer = MultiHeadAttention.create(8, heads=4, key_heads=2, rotary="half")
    >>> x = np.ones((1, 3, 8), dtype=np.float32)
    >>> full = layer.forward(x, causal=True)
    >>> cache = layer.new_cache(batch_size=1, capacity=3)
    >>> steps = [layer.step(x[:, t : t + 1], cache) for t in range(3)]
    >>> bool(np.allclose(np.concatenate(steps, axis=1), full, atol=1e-6))
    True
    """

    def __init__(
        self,
        Wq: Array,
        Wk: Array,
        Wv: Array,
        Wo: Array,
        bq: Array | None = None,
        bk: Array | None = None,
        bv: Array | None = None,
        bo: Array | None = None,
        *,
        heads: int,
        key_heads: int | None = None,
        rotary: str | None = None,
        rotary_base: float = 10000.0,
        window: tuple[int | None, int | None] | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        heads, key_heads = sizes(heads=heads, key_heads=heads if key_heads is None else key_heads)
        check(Wq=(Wq, "D heads*D_head"), Wk=(Wk, "D_context key_heads*D_head"), Wv=(Wv, "D_context key_heads*D_value"))
        check_heads(Wq, Wk, Wv, Wo, heads, key_heads)
        if rotary not in (None, "half", "interleaved"):
            raise ValueError(f"`rotary` must be 'half', 'interleaved' or None, got {rotary!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1), got {dropout}")
        self.query, self.key, self.value, self.output = Affine(Wq, bq), Affine(Wk, bk), Affine(Wv, bv), Affine(Wo, bo)
        super().__init__(query=self.query, key=self.key, value=self.value, output=self.output)
        self.heads, self.key_heads = heads, key_heads
        self.rotary, self.rotary_base = rotary, rotary_base
        self.window, self.softcap = None if window is None else sides(window), softcap
        self.dropout, self.seed, self.training = dropout, integer("seed", seed, least=0), True
        self.dbias: Array | None = None
        self._attention: Any = None
        self._passes = 0

    def reseed(self, *seed: int) -> None:
        """What is dropped from here on is a function of these numbers."""
        self.seed, self._passes = int(np.random.SeedSequence(seed).generate_state(1)[0]), 0

    @classmethod
    def create(
        cls,
        embedding_size: int,
        heads: int,
        *,
        key_heads: int | None = None,
        context_size: int | None = None,
        use_bias: bool = True,
        rotary: str | None = None,
        rotary_base: float = 10000.0,
        window: tuple[int | None, int | None] | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
        **drawing: Unpack[Drawing],
    ) -> Self:
        """A layer with initial weights, and biases of 0.

        Parameters
        ----------
        embedding_size : int
            Size of inputs and outputs; a head has ``embedding_size / heads`` features.
        heads, key_heads : int
        context_size : int, optional
            Size of what keys and values are made of. Default: `embedding_size`.
        use_bias : bool
            Whether the four projections have biases.
        rotary, rotary_base, window, softcap, dropout
            As in the class.
        **drawing
            As in `Initializer`; the seed is also that of what is dropped.
        """
        embedding_size, heads, keys, context_size = sizes(
            embedding_size=embedding_size,
            heads=heads,
            key_heads=heads if key_heads is None else key_heads,
            context_size=embedding_size if context_size is None else context_size,
        )
        if embedding_size % heads:
            raise ValueError(f"`embedding_size` must be a multiple of `heads`, got {embedding_size} and {heads}")
        draw, key_size = Initializer.of(**drawing), embedding_size // heads * keys
        of_self, of_context = (embedding_size, embedding_size), (context_size, key_size)
        shapes = of_self, of_context, of_context, of_self
        weights = [draw.matrix(*shape) for shape in shapes]
        biases = [draw.full(0, shape[1]) for shape in shapes] if use_bias else []
        return cls(
            *weights,
            *biases,
            heads=heads,
            key_heads=keys,
            rotary=rotary,
            rotary_base=rotary_base,
            window=window,
            softcap=softcap,
            dropout=dropout,
            seed=draw.draw_seed(),
        )

    @property
    def attention_weights(self) -> Array | None:
        """(N, heads, T_q, T_k) of the last forward or step, before dropout."""
        if self._attention is None:
            return None
        weights = self._attention.weights
        N, heads, rows, T_k = weights.shape
        shape = N, self.heads, heads * rows // self.heads, T_k  # a step's heads may stand as rows of their key head
        return self.backend.xp.reshape(weights, shape)

    def forward(
        self,
        x: Array,
        context: Array | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        bias: Array | None = None,
    ) -> Array:
        """Attend to the sequence itself, or to another one.

        Parameters
        ----------
        x : array (N, T, D)
        context : array (N, T_k, D_context), optional
            What keys and values are made of. Default: x.
        mask : boolean array (N, T_k), or of four axes that broadcast to (N, heads, T, T_k), optional
            True = attend; what (N, T_k) leaves out of a context may hold anything.
        causal : bool
            A step sees itself and what comes before.
        bias : array, optional
            Broadcasts to (N, heads, T, T_k): added to the scores.

        Returns
        -------
        array (N, T, D_out)
        """
        cross = context is not None
        if cross and (causal or self.rotary or self.window):
            raise ValueError("`context` excludes causal, rotary and window: steps of two sequences have no distance")
        source = x if context is None else context
        backend = check(x=(x, "N T D"), context=(source, "N T_k D_context"), mask=(mask, "*: bool"), bias=(bias, "*"))
        full = (x.shape[0], self.heads, x.shape[1], source.shape[1])
        if mask is not None and mask.ndim == 2:
            check(context=(source, "N T_k D_context"), mask=(mask, "N T_k: bool"))
        elif mask is not None and (mask.ndim != 4 or not broadcasts(tuple(mask.shape), full)):
            raise ValueError(f"`mask` must have shape (N, T_k) or broadcast to {full}, got {tuple(mask.shape)}")
        if bias is not None and not broadcasts(tuple(bias.shape), full):
            raise ValueError(f"`bias` must broadcast to (N, heads, T, T_k) = {full}, got {tuple(bias.shape)}")
        if cross and mask is not None and mask.ndim == 2:  # the gradients of Wk and Wv are products with all of it
            source = or_zero(backend, mask[..., None], source)
        q = split(self.query.forward(x), self.heads)
        k, v = self._keys_and_values(source)
        rotary = None
        if self.rotary:
            q, saved_q = self._turn(q, 0)
            k, saved_k = self._turn(k, 0)
            rotary = saved_q, saved_k
        dropout, self._passes = (self.dropout if self.training else 0.0), self._passes + 1
        out, self._attention = self._attend(
            q, k, v, mask, bias, causal=causal, dropout=dropout, seed=self.seed + self._passes
        )
        self._saved, self._dout = _Saved(self._attention, rotary, cross, bias is not None), None
        return self.output.forward(merge(out))

    def backward(self, dout: Array, *, grads: Sequence[str] = ()) -> Any:
        """dout (N, T, D_out) -> dx (N, T, D); dx, dcontext where there was a context.

        With ``grads=("bias",)``, `dbias` becomes the gradient of the bias that forward was given.
        """
        saved = self.saved()
        allowed = {"bias"} if saved.biased else set()
        if set(grads) - allowed:
            raise ValueError(f"`grads` may name 'bias' where forward was given one, got {sorted(grads)}")
        dheads = split(self.output.backward(dout), self.heads)
        self._note(dout)
        dq, dk, dv, *dbias = F.attention_backward(saved.attention, dheads, grads=tuple(set(grads)))
        self.dbias = dbias[0] if dbias else None
        if saved.rotary:
            dq, dk = (F.rotary_backward(own, d) for own, d in zip(saved.rotary, (dq, dk), strict=True))
        dx = self.query.backward(merge(dq))
        dcontext = self.key.backward(merge(dk))
        dcontext += self.value.backward(merge(dv))
        if saved.cross:
            return dx, dcontext
        dx += dcontext
        return dx

    # -- step by step, without backward

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache for `step`."""
        K, V = (layer.params[0].shape[1] // self.key_heads for layer in (self.key, self.value))
        return KVCache(batch_size, self.key_heads, capacity, K, value_size=V, like=self.key.params[0])

    def cache_context(self, context: Array) -> KVCache:
        """A full cache of another sequence (N, T_k, D_context), for `attend`."""
        check(context=(context, "N T_k D_context"))
        cache = self.new_cache(context.shape[0], context.shape[1])
        cache.append(*self._keys_and_values(context))
        return cache

    def step(self, x: Array, cache: KVCache, mask: Array | None = None, *, last: int | None = None) -> Array:
        """Go on by one step or more: x (N, T, D), mask (N, all steps so far) -> (N, T, D_out), as `causal` gives it.

        With `last`, only that many of the last steps come out: the others are for the cache.
        """
        check(x=(x, "N T D"))
        return self.output.forward(self.step_heads(*self.project(x), cache, mask, last=last))

    def attend(self, x: Array, cache: KVCache, mask: Array | None = None) -> Array:
        """Attend to what a cache holds: x (N, T, D), mask (N, T_k) -> (N, T, D_out)."""
        check(x=(x, "N T D"))
        q = split(self.query.forward(x), self.heads)
        return self.output.forward(self._attend_cached(q, cache.keys, cache.values, mask))

    def project(self, x: Array) -> tuple[Array, Array, Array]:
        """What `step` makes of each step by itself: x (N, T, D) -> queries, keys, values, heads side by side."""
        return self.query.forward(x), self.key.forward(x), self.value.forward(x)

    def step_heads(
        self, q: Array, k: Array, v: Array, cache: KVCache, mask: Array | None = None, *, last: int | None = None
    ) -> Array:
        """`step` between its projections: q, k, v (N, T, ·) of `project` -> (N, T, heads * D_value)."""
        first = 0 if last is None else max(0, q.shape[1] - integer("last", last, least=1))
        begin, start = cache.length, cache.length + first
        q = split(q[:, first:, :], self.heads)
        k, v = split(k, self.key_heads), split(v, self.key_heads)
        if self.rotary:
            q, k = self._turn(q, start)[0], self._turn(k, begin)[0]
        k, v = cache.append(k, v)
        farthest = None if self.window is None else self.window[0]
        if q.shape[2] == 1 and mask is None and (farthest is None or farthest >= start):
            return self._attend_all(q, k, v)
        unkept = {"keep_bytes": 0} if q.shape[2] > 1 else {}  # there is no backward
        return self._attend_cached(q, k, v, mask, causal=True, query_start=start, **unkept)

    def _attend_all(self, q: Array, k: Array, v: Array) -> Array:
        """One step that sees all keys; heads that share them become rows: q (N, heads, 1, D) -> (N, 1, heads * D_v)."""
        N, heads, _, D = q.shape
        self._saved, shape = None, (N, self.key_heads, heads // self.key_heads, D)
        out, self._attention = F.attention(self.backend.xp.reshape(q, shape), k, v, softcap=self.softcap)
        return self.backend.xp.reshape(out, (N, 1, heads * v.shape[-1]))

    def _attend_cached(self, q: Array, k: Array, v: Array, mask: Array | None, **options: Any) -> Array:
        check(keys=(k, "N heads T_k D"), mask=(mask, "N T_k: bool"))
        self._saved = None
        out, self._attention = self._attend(q, k, v, mask, None, **options)
        return merge(out)

    # -- the parts

    def _keys_and_values(self, source: Array) -> tuple[Array, Array]:
        return split(self.key.forward(source), self.key_heads), split(self.value.forward(source), self.key_heads)

    def _turn(self, x: Array, start: int) -> tuple[Array, Any]:
        positions = self.backend.asarray(np.arange(start, start + x.shape[-2]), like=x)
        return F.rotary(x, positions, base=self.rotary_base, interleaved=self.rotary == "interleaved")

    def _attend(
        self, q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None, **options: Any
    ) -> tuple[Array, Any]:
        if mask is not None and mask.ndim == 2:
            mask = mask[:, None, None, :]  # (N, T_k) -> (N, 1, 1, T_k)
        return F.attention(
            q, k, v, mask=mask, bias=bias, grouped=True, window=self.window, softcap=self.softcap, **options
        )
