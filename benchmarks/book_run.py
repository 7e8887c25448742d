"""One script of the book's checkout in an interpreter of its own, plain or with the drop-in, watched.

The script is not edited: what is watched are the losses that its layers return, the answers that its evaluation
gives, and the time at each.
"""

import argparse
import json
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LOSSES = 100
"""Of the first iterations, whose losses are kept."""


class Watch:
    """What a run has shown so far."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.losses: list[float] = []
        self.answers: list[int] = []
        self.times: dict[str, list[float]] = {"loss": [], "answer": []}

    def after(self, kind: str, function: Callable[..., Any], note: Callable[[Any], None]) -> Callable[..., Any]:
        """`function`, with its result noted and the time taken."""

        def watched(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            note(result)
            self.times[kind].append(time.perf_counter() - self.start)
            return result

        return watched

    def loss(self, value: Any) -> None:
        if len(self.losses) < LOSSES:
            self.losses.append(float(value))

    def install(self) -> None:
        """Watch the layers of `common`, whosever they are."""
        import common.layers
        import common.time_layers
        import common.util

        found = ((common.layers, "SoftmaxWithLoss"), (common.time_layers, "TimeSoftmaxWithLoss"))
        for module, name in (*found, (common.layers, "SigmoidWithLoss")):
            layer = getattr(module, name)
            layer.forward = self.after("loss", layer.forward, self.loss)
        common.util.eval_seq2seq = self.after("answer", common.util.eval_seq2seq, self.answers.append)

    def write(self, ended: str, out: Path) -> None:
        """What was seen, as JSON."""
        seen = {"ended": ended, "seconds": time.perf_counter() - self.start, "losses": self.losses}
        out.write_text(json.dumps(seen | {"answers": self.answers, "times": self.times}))


def shorten(rows: int, questions: int) -> None:
    """An epoch of so many rows and questions: the first of the book's own."""
    from dataset import sequence

    load = sequence.load_data

    def load_some(*args: Any, **options: Any) -> Any:
        train, test = load(*args, **options)
        return tuple(part[:rows] for part in train), tuple(part[:questions] for part in test)

    sequence.load_data = load_some


def main() -> None:
    """Run the script of the command line, and write what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["plain", "drop-in"])
    parser.add_argument("script", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--lend", default="", help="a folder of the checkout to put on the path, to compare with")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--questions", type=int, default=0)
    options = parser.parse_args()
    script, out = options.script.resolve(), options.out.resolve()
    checkout = script.parents[1]
    os.chdir(script.parent)
    sys.path[0] = str(script.parent)
    sys.path.append(str(checkout))
    if options.lend:
        sys.path.append(str(checkout / options.lend))
    if options.way == "drop-in":
        from attnlayers.book import _run

        _run._prepare(script, checkout, set())
    watch = Watch()
    watch.install()
    if options.rows:
        shorten(options.rows, options.questions)
    np.random.seed(0)  # noqa: NPY002  the scripts draw from this one

    def stop(*_: Any) -> None:
        watch.write("bound", out)
        sys.stdout.flush()
        os._exit(0)  # no handler of the script's own gets in the way

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, options.seconds)
    watch.start = time.perf_counter()
    ended = "ended"
    try:
        if options.way == "drop-in":
            ended = "failed" if _run._execute(script, []) else "ended"
        else:
            runpy.run_path(str(script), run_name="__main__")
    except Exception:
        traceback.print_exc()
        ended = "failed"
    signal.setitimer(signal.ITIMER_REAL, 0)
    watch.write(ended, out)


if __name__ == "__main__":
    main()
