"""One script of the book's checkout in an interpreter of its own, plain or with the drop-in, watched.

The script is not edited: what is watched are the losses that its layers return, the answers that its model
generates when it is evaluated, and the time at each.
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
"""How many of the first iterations, whose losses are kept."""


class Watch:
    """What a run has shown so far."""

    def __init__(self, out: Path, enough: int) -> None:
        self.out, self.enough = out, enough
        self.start = time.perf_counter()
        self.losses: list[float] = []
        self.answers: list[list[int]] = []
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

    def answered(self, _: Any) -> None:
        if len(self.answers) == self.enough:
            self.stop()

    def question(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        """`evaluate` of one question, with the ids that the model answers noted."""

        def watched(model: Any, *args: Any, **options: Any) -> Any:
            generate = type(model).generate

            def noted(*given: Any) -> Any:
                guess = generate(model, *given)
                self.answers.append([int(c) for c in guess])
                return guess

            model.generate = noted
            return evaluate(model, *args, **options)

        return watched

    def install(self) -> None:
        """Watch the layers of `common`, whosever they are."""
        import common.layers
        import common.time_layers
        import common.util

        found = ((common.layers, "SoftmaxWithLoss"), (common.time_layers, "TimeSoftmaxWithLoss"))
        for module, name in (*found, (common.layers, "SigmoidWithLoss")):
            layer = getattr(module, name)
            layer.forward = self.after("loss", layer.forward, self.loss)
        evaluate = self.question(common.util.eval_seq2seq)
        common.util.eval_seq2seq = self.after("answer", evaluate, self.answered)

    def write(self, ended: str) -> None:
        """What was seen, as JSON."""
        seen = {"ended": ended, "seconds": time.perf_counter() - self.start, "losses": self.losses}
        self.out.write_text(json.dumps(seen | {"answers": self.answers, "times": self.times}))

    def stop(self, *_: Any) -> None:
        """End the process here; no handler of the script's own gets in the way."""
        self.write("bound")
        sys.stdout.flush()
        os._exit(0)


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
    parser.add_argument("--questions", type=int, default=0, help="so many answers end the run")
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
    watch = Watch(out, options.questions)
    watch.install()
    if options.rows:
        shorten(options.rows, options.questions)
    np.random.seed(0)  # noqa: NPY002  the scripts draw from this one

    signal.signal(signal.SIGALRM, watch.stop)
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
    watch.write(ended)


if __name__ == "__main__":
    main()
