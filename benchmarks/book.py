"""Every script of a checkout of the book's code, plain and with the drop-in: make book BOOK=<checkout>

The checkout is copied; nothing is downloaded. Scripts that read the Penn Treebank get a made-up corpus of its size,
those that read weights that another script would write get random ones of their shapes.
"""

import argparse
import json
import math
import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WAYS = ("plain", "drop-in")

WORDS = {"train": 929_589, "valid": 73_760, "test": 82_430}
"""Sizes of the Penn Treebank, and of the corpus that stands for it here."""

VOCABULARY = 10_000
NAMED = (  # noqa: SIM905
    "<eos> <unk> N $ the of is you year car toyota king man queen meaning life happy lexus take took go woman cars day"
).split()
"""Words that the scripts ask for by name; the others are numbered."""

EPOCHS = {
    "ch08/train.py": (351, 5000, 2.5),
    "ch07/train_seq2seq.py": (351, 5000, 2.0),
    "ch06/train_better_rnnlm.py": (1327, 0, 2.0),
}
"""Iterations and questions in an epoch of the scripts whose speed is a promise, and how much it is."""

LONG = {
    "ch02/count_method_big.py": 1,
    "ch04/train.py": 3,
    "ch05/train.py": 1,
    "ch05/train_custom_loop.py": 1,
    "ch06/eval.py": 1,
    "ch06/train_better_rnnlm.py": 4,
    "ch06/train_rnnlm.py": 1,
    "ch07/train_seq2seq.py": 1,
    "ch08/train.py": 2,
}
"""Scripts that do not end by themselves in less, and how many times the bound brings them through some iterations."""

EPOCH = {"ch06/train_better_rnnlm.py": 4}
"""The same for the runs that an epoch is measured by, where those need more than twice the bound."""

SHORT = ("--rows", "1280", "--questions", "100")
"""Options of a short epoch with questions: ten iterations, then so many questions."""

SAME = 1e-4
"""Relative difference up to which losses are the same."""

START = 15
"""Seconds for imports, and for a script that does not hear the signal at its bound."""

OTHERS = 180
"""Seconds for all scripts together that end by themselves, and for one in float64."""

WIDTH = 140

LENT = ("--lend", "ch07")
"""What the plain run of chapter 8 lacks: with it there is something to compare the drop-in with."""


def prepare(checkout: Path, work: Path) -> Path:
    """A copy of the checkout that needs no network."""
    copy = work / "book"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    data = copy / "dataset"
    rng = np.random.default_rng(0)
    words = NAMED + [f"w{number}" for number in range(VOCABULARY - len(NAMED))]
    ids = {word: number for number, word in enumerate(words)}
    (data / "ptb.vocab.pkl").write_bytes(pickle.dumps((ids, dict(enumerate(words)))))
    often = 1 / np.arange(1, VOCABULARY + 1)  # as words are: the n-th most frequent occurs 1/n as often
    for part, count in WORDS.items():
        corpus = rng.choice(VOCABULARY, size=count, p=often / often.sum())
        corpus[-VOCABULARY:] = rng.permutation(VOCABULARY)  # every word occurs
        np.save(data / f"ptb.{part}.npy", corpus)
    V, D, H = VOCABULARY, 650, 650
    shapes = [(V, D), *2 * [(D, 4 * H), (H, 4 * H), (4 * H,)], (H, V), (V,)]
    weights = [(rng.standard_normal(shape) / 30).astype(np.float16) for shape in shapes]
    (copy / "ch06" / "BetterRnnlm.pkl").write_bytes(pickle.dumps(weights))
    return copy


def in_float64(script: Path, work: Path) -> Path:
    """The script in a copy of the checkout that computes in float64, from the same initial weights."""
    copy = work / "float64"
    if not copy.exists():
        shutil.copytree(script.parents[1], copy)
        for path in copy.glob("*/*.py"):
            code = path.read_bytes().replace(b"astype('f')", b"astype('f').astype('d')")
            path.write_bytes(code.replace(b"dtype='f'", b"dtype='d'"))
    return copy / script.parent.name / script.name


def run(script: Path, way: str, seconds: float, out: Path, *more: str) -> dict[str, Any]:
    """What a run of one script showed, its own output among it."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT / "backends")))
    env = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": paths}
    command = [sys.executable, str(ROOT / "benchmarks" / "book_run.py"), way, str(script), str(out)]
    out.unlink(missing_ok=True)
    seen: dict[str, Any] = {"ended": "failed", "seconds": 0.0, "losses": [], "answers": []}
    seen["times"] = {"loss": [], "answer": []}
    with out.with_suffix(".txt").open("w") as text:
        try:
            subprocess.run(
                [*command, "--seconds", str(seconds), *more], env=env, stdin=subprocess.DEVNULL, stdout=text,
                stderr=text, check=False, timeout=seconds + START,
            )  # fmt: skip
        except subprocess.TimeoutExpired:  # inside one long call of NumPy, which no signal ends
            seen |= {"ended": "bound", "seconds": seconds}
    if out.exists():
        seen = json.loads(out.read_text())
    return seen | {"shown": out.with_suffix(".txt").read_text(errors="replace")}


def difference(plain: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """The largest relative difference of the losses, or of all numbers printed; None if there are none to compare."""
    pairs = list(zip(plain["losses"], ours["losses"], strict=False))
    if not pairs:
        both = [_numbers(seen["shown"]) for seen in (plain, ours)]
        whole = plain["ended"] == ours["ended"] == "ended"
        if not whole or not both[0] or len(both[0]) != len(both[1]):
            return None
        pairs = list(zip(*both, strict=True))
    return max(abs(a - b) / max(abs(a), 1e-6) for a, b in pairs)


def _numbers(text: str) -> list[float]:
    found = []
    for word in "".join(" " if c in "[]," else c for c in text).split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def pace(seen: Mapping[str, Any], kind: str, count: int | None = None) -> float:
    """Seconds for each of the first `count` events of a kind: the median, so that pauses between do not count."""
    return float(np.median(np.diff(seen["times"][kind][:count])))


def ratio(plain: Mapping[str, Any], ours: Mapping[str, Any]) -> float | None:
    """How many times as fast the drop-in is: by the whole run where both ended, else by iterations that both did."""
    if "failed" in (plain["ended"], ours["ended"]):
        return None
    if plain["ended"] == ours["ended"] == "ended":
        return float(plain["seconds"] / ours["seconds"])
    count = min(len(plain["times"]["loss"]), len(ours["times"]["loss"]))
    return None if count < 3 else pace(plain, "loss", count) / pace(ours, "loss", count)


def alike(plain: Sequence[Any], ours: Sequence[Any]) -> str:
    """How many of the answers that both gave are the same."""
    both = list(zip(plain, ours, strict=False))
    return f"{sum(a == b for a, b in both)} of {len(both)}" if both else ""


def epoch(script: Path, rounds: int, seconds: float, work: Path) -> dict[str, Any]:
    """An epoch of a script, from short runs in turns: its iterations and its questions."""
    iterations, questions, promised = EPOCHS[f"{script.parent.name}/{script.name}"]
    short = SHORT if questions else ()
    lent = {"plain": LENT if script.parent.name == "ch08" else (), "drop-in": ()}
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, list[float]] = {way: [] for way in WAYS}
    given: dict[str, list[list[int]]] = {}
    lacking: dict[str, Any] = {}
    for _ in range(rounds):
        pair = {way: run(script, way, seconds, work / "epoch.json", *short, *lent[way]) for way in WAYS}
        for way, seen in pair.items():
            few = len(seen["times"]["loss"]) < 3 or (questions and len(seen["times"]["answer"]) < 3)
            if seen["ended"] == "failed" or few:
                lacking = {"too few": way, "shown": seen["shown"].strip().splitlines()[-1:]}
                break
        else:
            for way, seen in pair.items():
                steps[way].append(pace(seen, "loss"))
                answers[way].append(pace(seen, "answer") if questions else 0.0)
                given[way] = seen["answers"]
    if not given:
        return {"promised": promised, **lacking}
    whole = {way: iterations * np.array(steps[way]) + questions * np.array(answers[way]) for way in WAYS}
    ratios = whole["plain"] / whole["drop-in"]
    shown = {way: {"s an epoch": round(float(np.median(whole[way])), 1),
                   "ms an iteration": round(1e3 * float(np.median(steps[way])), 1),
                   "ms a question": round(1e3 * float(np.median(answers[way])), 2)} for way in WAYS}  # fmt: skip
    ratios = [round(float(value), 2) for value in ratios]
    same = {"same answers": alike(given["plain"], given["drop-in"])} if questions else {}
    return {"promised": promised, "ratio": float(np.median(ratios)), "ratios": ratios, **same, **shown}


def main() -> None:
    """Run everything, show the table, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("book", type=Path, help="a checkout of the book's code")
    parser.add_argument("--seconds", type=float, default=20, help="bound for each run of a script")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs for the ratio of an epoch")
    parser.add_argument("--only", default="", help="scripts whose name has this in it; nothing is kept then")
    options = parser.parse_args()
    if not (options.book / "common" / "np.py").is_file():
        parser.error(f"{options.book} is no checkout of the book's code: it has no common/np.py")
    console = Console(width=WIDTH)
    begun = moment()
    names = [name for name in LONG if options.only in name]
    runs = 2 * sum(LONG[name] for name in names)
    runs += 2 * options.rounds * sum(EPOCH.get(name, 2) for name in names if name in EPOCHS)
    console.print(f"{begun}; at most {math.ceil((options.seconds * runs + OTHERS) / 60)} minutes")
    rows: dict[str, dict[str, Any]] = {}
    epochs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copy = prepare(options.book.resolve(), work)
        for script in sorted(copy.glob("ch0*/*.py")):
            name = f"{script.parent.name}/{script.name}"
            if options.only in name:
                rows[name] = compare(script, options.seconds * LONG.get(name, 1), work)
                console.print(name, *(rows[name][way] for way in WAYS), rows[name]["difference"], rows[name]["ratio"])
        for name in EPOCHS:
            if options.only in name:
                epochs[name] = epoch(copy / name, options.rounds, options.seconds * EPOCH.get(name, 2), work)
                console.print(name, epochs[name])
    machine = {"python": platform.python_version(), "numpy": np.__version__, "cores": os.cpu_count()}
    kept = {"command": "make book BOOK=<checkout of commit 842ae31>", "bound": options.seconds, **machine}
    kept |= {"from": begun, "to": moment()}
    show(console, kept, rows, epochs)
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "book.json").write_text(json.dumps(kept | {"scripts": rows, "epochs": epochs}, indent=1) + "\n")
        with (RESULTS / "book.txt").open("w") as text:
            show(Console(file=text, width=WIDTH), kept, rows, epochs)


def moment() -> str:
    """Date, time and how busy the machine is: with a load above its cores, ratios mean little."""
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{datetime.now():%Y-%m-%d %H:%M}, load average of 1, 5 and 15 minutes {loads}"


def compare(script: Path, seconds: float, work: Path) -> dict[str, Any]:
    """One script both ways."""
    plain, ours = (run(script, way, seconds, work / f"{way}.json") for way in WAYS)
    lacks = "No module named 'seq2seq'" in plain["shown"]
    ended = plain["ended"]
    if lacks:
        plain = run(script, "plain", seconds, work / "plain.json", *LENT)
    apart = difference(plain, ours)
    rounding, reached = None, 0
    if apart is not None and apart > SAME:
        exact = run(in_float64(script, work), "plain", 3 * seconds, work / "exact.json", *(LENT if lacks else ()))
        losses = exact["losses"][: len(ours["losses"])]
        rounding, reached = difference(plain, exact | {"losses": losses}), len(losses)
    failed = [seen["shown"].strip().splitlines()[-1] for seen in (ours, plain) if seen["ended"] == "failed"]
    return {
        "plain": ended,
        "drop-in": ours["ended"],
        "plain seconds": round(plain["seconds"], 2),
        "drop-in seconds": round(ours["seconds"], 2),
        "losses compared": min(len(plain["losses"]), len(ours["losses"])),
        "difference": apart,
        "plain against itself in float64": rounding,
        "losses in float64": reached,
        "answers": alike(plain["answers"], ours["answers"]),
        "ratio": ratio(plain, ours),
        "error": "No module named 'seq2seq'; compared with ch07 on the path" if lacks else (failed or [""])[0],
    }


def show(
    console: Console, kept: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], epochs: Mapping[str, Any]
) -> None:
    """The tables."""
    for name, value in kept.items():
        console.print(f"{name}: {value}", highlight=False)
    table = Table("script", "plain", "drop-in", "same numbers", "losses", "same answers", "s", "s drop-in", "ratio")
    for name, row in rows.items():
        apart, rounding = row["difference"], row["plain against itself in float64"]
        same = "" if apart is None else f"{'yes' if apart <= SAME else 'NO'}, {apart:.0e}"
        same += "" if rounding is None else f"; float64: {rounding:.0e} ({row['losses in float64']})"
        answers = row["answers"] or epochs.get(name, {}).get("same answers", "")
        times = [f"{row[f'{way} seconds']:.1f}" for way in WAYS]
        ratio_of = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        losses = str(row["losses compared"] or "")
        table.add_row(name, row["plain"], row["drop-in"], same, losses, answers, *times, ratio_of)
    console.print(table)
    if any(row["plain against itself in float64"] is not None for row in rows.values()):
        console.print("float64: the plain script against itself in float64 (so many losses): what rounding alone does")
    for name, row in rows.items():
        if row["error"]:
            console.print(f"{name}: {row['error']}", highlight=False)
    console.print("An epoch, evaluation included, from runs in turns; the ratio is plain over drop-in:")
    for name, measured in epochs.items():
        console.print(f"{name}:", dict(measured))


if __name__ == "__main__":
    main()
