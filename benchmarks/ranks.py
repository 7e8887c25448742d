"""What two ranks reach, against two processes that train by themselves side by side.

    ATTN_THREADS=1 OMP_NUM_THREADS=1 mpiexec -n 2 python -m benchmarks.ranks

Both are timed in the same two processes, in turns, so that whatever else the machine does hits both. The model is the
Transformer of `attnlayers train dates`. Times are the clock's and, where other programs use the cores, CPU time.
"""

from __future__ import annotations

from argparse import ArgumentParser
from statistics import median, quantiles
from time import perf_counter, process_time

import numpy as np

from attnlayers import distributed


class Loop:
    """Steps of a Transformer on the dates, by ranks together or by one alone."""

    def __init__(self, ranks: distributed.Ranks, batch_size: int) -> None:
        from attnlayers.data import PairDataset
        from attnlayers.training import AdamW, Settings

        settings = Settings.of(architecture="transformer", batch_size=batch_size)
        pairs = settings.pairs()
        vocabulary = settings.vocabulary(pairs)
        self.ranks, self.batch_size = ranks, batch_size
        self.data = PairDataset(pairs, vocabulary, reverse=True)
        self.model = settings.model(vocabulary)
        self.optimizer = AdamW(0.001, weight_decay=0.0)
        self._rng = np.random.default_rng(1)
        self.waited = self.reduced = 0.0

    def step(self) -> int:
        """One step; tokens of this rank."""
        from attnlayers.training import clip_grads

        # Pairs of all lengths, so that one batch costs what another does.
        places = self._rng.choice(len(self.data), self.batch_size, replace=False)
        batch = self.data.batch(places, self.ranks.share(self.batch_size))
        loss = self.model.forward(batch.sources, batch.inputs, batch.labels, batch.source_mask)
        self.model.backward()
        begun = perf_counter()
        self.ranks.any(False)
        met = perf_counter()
        self.ranks.average(self.model.grads, batch.num_tokens, loss)
        self.waited, self.reduced = self.waited + met - begun, self.reduced + perf_counter() - met
        clip_grads(self.model.grads, 5.0)
        self.optimizer.update(self.model.params, self.model.grads)
        return batch.num_tokens


def measure(loop: Loop, steps: int) -> np.ndarray:
    """Tokens, seconds and CPU seconds of some steps, and seconds spent waiting and reducing."""
    loop.waited = loop.reduced = 0.0
    clock, cpu = perf_counter(), process_time()
    tokens = sum(loop.step() for _ in range(steps))
    return np.array([tokens, perf_counter() - clock, process_time() - cpu, loop.waited, loop.reduced])


def reduce(ranks: distributed.Ranks, count: int) -> None:
    """Time the reduction of so many gradients in five arrays, and the part of it that is copying."""
    from attnlayers.distributed._sums import FlatSum

    grads = [np.ones(count // 5, np.float32) for _ in range(5)]
    flat = FlatSum(grads, 1)
    seconds: dict[str, list[float]] = {"all": [], "copying": []}
    for _ in range(max(3, 10**8 // count)):
        ranks.gather(None)
        begun = perf_counter()
        ranks.average(grads, 1.0, 1.0)
        seconds["all"].append(perf_counter() - begun)
        ranks.gather(None)
        begun = perf_counter()
        flat.average(grads, 1.0, [1.0], lambda buffer: buffer)
        seconds["copying"].append(perf_counter() - begun)
    if ranks.first:
        best = {name: f"{min(found) * 1e3:.2f} ms" for name, found in seconds.items()}
        print(
            f"{count:,} gradients: the fastest reduction took {best['all']}, {best['copying']} of it copying",
            flush=True,
        )


def quartiles(values: list[float]) -> str:
    """Where the middle half lies."""
    first, _, last = quantiles(values, n=4)
    return f"half of them {first:.3f} to {last:.3f}"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    with distributed.join() as ranks:
        from attnlayers.distributed import Ranks

        alone = Loop(Ranks(), 128)
        for batch_size in (128 * ranks.size, 128):
            together = Loop(ranks, batch_size)
            rows = []
            for number in range(options.rounds + 1):
                found = []
                for loop in (together, alone) if number % 2 else (alone, together):
                    ranks.gather(None)
                    found.append((loop is alone, measure(loop, options.steps)))
                everywhere = ranks.gather(dict(found))
                if number:  # the first warms up
                    rows.append([sum(of_rank[kind] for of_rank in everywhere) for kind in (False, True)])
            if not ranks.first:
                continue
            speeds = [[shared[0] / shared[i] / (own[0] / own[i]) for shared, own in rows] for i in (1, 2)]
            step = [median(row[0][i] / ranks.size / options.steps * 1e3 for row in rows) for i in (1, 3, 4)]
            count = sum(param.size for param in together.model.params)
            fastest = [min(shared[i] for shared, _ in rows) / ranks.size / options.steps * 1e3 for i in (1, 4)]
            print(
                f"{ranks.size} ranks, a batch of {batch_size}, {count:,} parameters: tokens a second together, over "
                f"those side by side: {median(speeds[0]):.3f} ({quartiles(speeds[0])}) by the clock, "
                f"{median(speeds[1]):.3f} ({quartiles(speeds[1])}) by CPU time; a step takes "
                f"{step[0]:.1f} ms, of which ranks wait for each other {step[1]:.2f} ms and reduce {step[2]:.2f} ms; "
                f"the fastest step took {fastest[0]:.1f} ms, the fastest reduction {fastest[1]:.2f} ms",
                flush=True,
            )
        for count in (10**6, 10**8):
            reduce(ranks, count)


if __name__ == "__main__":
    main()
