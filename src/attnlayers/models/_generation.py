"""Text that a language model goes on with, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnbackends import Array

from ..functional.checks import check
from ..functional.integers import integer
from ._sampling import Sampler

if TYPE_CHECKING:
    from ._causal_lm import CausalLM

Prompts = Sequence[Sequence[int] | np.ndarray] | Array

TOKENS_AT_ONCE = 512
"""Tokens of prompts, over all rows, that go through the layers together while text is written. More take more memory
beyond weights and caches, fewer read the weights more often and make smaller products: a prompt of 512 tokens of GPT-2
small took 0.85 of the time that it took in two parts (benchmarks/NOTES.md, "Language models")."""

LEAST_AT_ONCE = 16
"""Tokens of each prompt that go through the layers together at least, however many prompts there are."""


def generate(
    model: CausalLM,
    prompts: Prompts,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | Sequence[int],
    stop: Sequence[int] | None,
) -> Iterator[np.ndarray]:
    """`CausalLM.generate`: what is wrong is told by the call, before the first token."""
    rows = _rows(model, prompts)
    max_tokens = integer("max_tokens", max_tokens, least=0)
    longest = max(map(len, rows), default=0)
    if model.positions is not None and longest + max_tokens > model.options["max_length"] + 1:
        raise ValueError(
            f"the model has {model.options['max_length']} positions, got a prompt of {longest} tokens and "
            f"max_tokens={max_tokens}: ask for {max(0, model.options['max_length'] + 1 - longest)} or shorten it"
        )
    sampler = Sampler(temperature, top_k, top_p, seed, len(rows))
    ends = np.array([integer("stop", id_) for id_ in (model.stop if stop is None else stop)], np.int64)
    return _generate(model, rows, max_tokens, sampler, ends)


def _generate(
    model: CausalLM, rows: list[np.ndarray], max_tokens: int, sampler: Sampler, stop: np.ndarray
) -> Iterator[np.ndarray]:
    if not rows or not max_tokens:
        return
    backend, xp = model.backend, model.backend.xp
    N, T = len(rows), max(map(len, rows))
    ids, valid = np.zeros((N, T), np.int64), np.ones((N, T + max_tokens), bool)
    for n, row in enumerate(rows):  # on the left: the next token stands beside the last one of every prompt
        ids[n, T - len(row) :], valid[n, : T - len(row)] = row, False
    mask = None if valid.all() else backend.asarray(valid)
    caches = model.new_cache(N, T + max_tokens - 1)
    ended = np.zeros(N, bool)
    size = max(LEAST_AT_ONCE, TOKENS_AT_ONCE // N)
    for begin in range(0, T - size, size):
        here = None if mask is None else mask[:, : begin + size]
        model._advance(backend.asarray(ids[:, begin : begin + size]), caches, here, True)
    ids = ids[:, caches[0].length :]
    for step in range(max_tokens):
        here = None if mask is None else mask[:, : T + step]
        logits = model.step(backend.asarray(ids), caches, here, last=True)[:, 0, :]
        if sampler.greedy:
            chosen = backend.to_numpy(xp.argmax(logits, axis=-1)).astype(np.int64)
        else:
            chosen = sampler(backend.to_numpy(logits))
        yield np.where(ended, -1, chosen)
        ended |= np.isin(chosen, stop)
        if ended.all():
            return
        ids = chosen[:, None]


def _rows(model: CausalLM, prompts: Prompts) -> list[np.ndarray]:
    many: Any = prompts
    if hasattr(many, "dtype"):
        check(prompts=(many, "N T: int"))
        many = model.backend.to_numpy(many)
    rows = [np.asarray(row) for row in many]
    for place, row in enumerate(rows):
        if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
            raise ValueError(
                f"prompt {place} must be a sequence of one token id or more, got {row.dtype} of shape {row.shape}"
            )
        if row.min() < 0 or row.max() >= model.options["vocab_size"]:
            raise ValueError(
                f"ids must lie in 0 .. {model.options['vocab_size'] - 1}, got {row.min()} .. {row.max()} in prompt "
                f"{place}: use the tokenizer of the model"
            )
    return rows
