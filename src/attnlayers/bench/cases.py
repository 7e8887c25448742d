"""What is measured: shapes, and inputs by seed."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

Inputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""q, k, v and dout; v is k itself where a case shares them."""

ROTATED_BYTES = 64 * 1024**2
"""Bytes of all sets of inputs together: more than a cache holds."""


@dataclass(frozen=True)
class Case:
    """Shapes of one attention.

    Attributes
    ----------
    name : str
    batch : int
        Entries times heads.
    T_q, T_k, D : int
        Queries, keys, and the size of a head.
    causal : bool
    shared : bool
        Keys are the values, and scores are not scaled: the book's `TimeAttention`.
    forward_only : bool
    sweep : bool
        One of a series over T, measured forward and backward together.
    memory : bool
        Whether what it adds to the peak of memory is measured, too.
    """

    name: str
    batch: int
    T_q: int
    T_k: int
    D: int
    causal: bool = False
    shared: bool = False
    forward_only: bool = False
    sweep: bool = False
    memory: bool = False

    @property
    def scale(self) -> float:
        """Factor of the scores."""
        return 1.0 if self.shared else float(self.D) ** -0.5

    @property
    def directions(self) -> tuple[str, ...]:
        """Which of forward, backward and both are measured."""
        if self.forward_only:
            return ("forward",)
        return ("both",) if self.sweep else ("forward", "backward", "both")

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights in float32."""
        return 4 * self.batch * self.T_q * self.T_k

    def work(self, direction: str, itemsize: int = 4) -> tuple[int, int]:
        """Operations of the products, and bytes of inputs and outputs.

        Two products forward and four backward, of the scores that a causal mask leaves; each input and output once.
        What is made again, kept or read twice is not counted.
        """
        seen = self.T_q * self.T_k
        if self.causal:
            seen = sum(min(row + 1, self.T_k) for row in range(self.T_q))
        products, of_queries, of_keys = {"forward": (2, 2, 1), "backward": (4, 3, 2), "both": (6, 4, 2)}[direction]
        numbers = of_queries * self.T_q + of_keys * (1 if self.shared else 2) * self.T_k
        return 2 * products * self.batch * seen * self.D, itemsize * self.batch * numbers * self.D

    def draw(self, seed: int = 0) -> list[Inputs]:
        """Sets of inputs in float32, to be used in turn.

        Parameters
        ----------
        seed : int

        Returns
        -------
        list of (q (batch, T_q, D), k (batch, T_k, D), v (batch, T_k, D), dout (batch, T_q, D))
            As many as a cache does not hold, from 2 to 16. Scores have a standard deviation of about 1.
        """
        rng = np.random.default_rng(seed)
        size = self.D**-0.25 if self.shared else 1.0

        def draw(T: int) -> np.ndarray:
            return np.float32(size) * rng.standard_normal((self.batch, T, self.D), dtype=np.float32)

        floats = self.batch * self.D * (2 * self.T_q + (1 if self.shared else 2) * self.T_k)
        sets = []
        for _ in range(min(16, max(2, ceil(ROTATED_BYTES / (4 * floats))))):
            q, k = draw(self.T_q), draw(self.T_k)
            sets.append((q, k, k if self.shared else draw(self.T_k), draw(self.T_q)))
        return sets


TABLE = (
    Case("book", 128, 10, 29, 256, shared=True),
    Case("short", 32, 64, 64, 256),
    Case("mid", 16, 256, 256, 64),
    Case("long", 16, 1024, 1024, 64),
    Case("causal", 8, 2048, 2048, 64, causal=True),
    Case("longer", 4, 4096, 4096, 64),
    Case("decode", 64, 1, 4096, 64, forward_only=True),
    Case("huge", 1, 16384, 16384, 64, memory=True),
)

SWEEP = tuple(Case(f"T={T}", 4, T, T, 64, sweep=True) for T in (64, 256, 1024, 4096))
"""Time against sequence length, for the picture."""

TRAINING = "training"
"""The name of the training step among the cases."""

NAMES = (*(case.name for case in TABLE), "sweep", TRAINING)
"""What ``--cases`` takes."""


def chosen(names: tuple[str, ...]) -> list[Case]:
    """The cases of these names, in the order of the table; the training step is none of them."""
    return [case for case in (*TABLE, *SWEEP) if case.name in names or (case.sweep and "sweep" in names)]
