"""The figures that pages show of CUDA, made from what was measured.

``python -m benchmarks.pages`` writes them anew, after `gpu_check.sh` or `benchmarks.host_time` has left other files in
``results/``: whatever stands between the lines ``<!-- measured: NAME -->`` and ``<!-- /measured -->`` of the pages. A
test holds the pages against the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {"README.md": 0, "README.ja.md": 1, "docs/performance.md": 0, "docs/ja/performance.md": 1}
"""Pages, and their language: which of two texts they get."""

OURS, BLOCK = "attnlayers", re.compile(r"(?<=<!-- measured: )([\w-]+) -->\n.*?(?=<!-- /measured -->)", re.DOTALL)

WIDTH = 140
"""Columns of a paragraph in English."""

Entry = dict[str, Any]
Texts = tuple[str, str]

NOT_MEASURED: Texts = "not measured", "未計測"

STANDING: Texts = (
    "It ran on an {name} ({date}): {passed:,} of {tests:,} CuPy tests passed. There the device works on "
    "`TimeAttention`, forward and backward in float32, {book} times as long as on PyTorch's fastest kernel; on `long` "
    "{long} times in float32 and {half} times in float16. A training step of chapter 8 takes {ms:.1f} ms, {ratio:.2f} "
    "of PyTorch's eager step.",
    "{name} の 1 台で動かしました（{date}）。CuPy のテスト {tests:,} 件のうち {passed:,} 件が合格しました。\n"
    "forward と backward を合わせたデバイスの時間は、PyTorch の最速のカーネルと比べて、"
    "`TimeAttention` が float32 で {book} 倍、`long` が float32 で {long} 倍、float16 で {half} 倍です。\n"
    "8 章のモデルの学習 1 ステップは {ms:.1f} ms で、PyTorch（eager）の {ratio:.2f} 倍です。",
)

HEADINGS: dict[str, Texts] = {
    "attention": (
        "case, dtype | forward, device | both, device | over PyTorch | both, host | waited for, over PyTorch | kernel",
        "ケース、dtype | forward、デバイス | 両方、デバイス | PyTorch との比 | 両方、ホスト | 待つまでの比 | カーネル",
    ),
    "host": (
        "call | launches | copies | host, us | its floor, us | over the floor",
        "呼び出し | 起動 | コピー | ホスト、us | 下限、us | 下限との比",
    ),
}


class Run:
    """``results/cuda/results.json``."""

    def __init__(self) -> None:
        self.steps: Entry = json.loads((RESULTS / "cuda" / "results.json").read_text(encoding="utf-8"))

    def item(self, step: str, name: str) -> Entry:
        """What an item came to; nothing where it was not measured."""
        items = self.steps.get(step, {}).get("items", [])
        return next((entry for entry in items if entry["item"] == name), {})

    def attention(self) -> Iterator[tuple[str, str, str, Entry, str, Entry]]:
        """Case, dtype, direction, ours, and that kernel of PyTorch's that takes the device least.

        Without those that round the factors of products to TF32: ours do not.
        """
        for entry in self.steps.get("attention", {}).get("items", []):
            case, _, dtype = entry["item"].partition(", ")
            ours = entry.get("contenders", {}).get(OURS, {})
            direction = "both" if "both" in ours else "forward"
            theirs = {
                name: some
                for name, some in entry.get("contenders", {}).items()
                if name != OURS and direction in some and "TF32" not in name
            }
            if direction in ours and theirs and not case.startswith("T="):
                best = min(theirs, key=lambda name: theirs[name][direction]["device_us"])
                yield case, dtype, direction, ours, best, theirs

    def ratio(self, case: str, dtype: str) -> str:
        """Ours over PyTorch's best, of the device's time."""
        for some, kind, direction, ours, best, theirs in self.attention():
            if (some, kind) == (case, dtype):
                return f"{ours[direction]['device_us'] / theirs[best][direction]['device_us']:.2f}"
        return "?"


def cuda(language: int) -> str:
    """One sentence or two: where CUDA stands."""
    run = Run()
    name = next(entry["device"] for entry in run.steps["attention"]["items"] if "device" in entry)
    step = run.item("training", "step").get("contenders", {})
    ratio = step[OURS]["ms"] / min(some["ms"] for name, some in step.items() if name != OURS and "ms" in some)
    counts = [entry["counts"] for entry in run.steps.get("tests", {}).get("items", []) if "counts" in entry]
    passed, failed = (sum(some[outcome] for some in counts) for outcome in ("passed", "failed"))
    told = STANDING[language].format(
        name=name, date=run.steps["attention"]["date"], book=run.ratio("book", "float32"),
        long=run.ratio("long", "float32"), half=run.ratio("long", "float16"), ratio=ratio, ms=step[OURS]["ms"],
        passed=passed, tests=passed + failed,
    )  # fmt: skip
    return told if language else fill(told, WIDTH)


def cuda_attention(language: int) -> str:
    """Attention, by case and dtype."""
    lines = _headed("attention", language)
    for case, dtype, direction, ours, best, theirs in Run().attention():
        mine, own = ours[direction], theirs[best][direction]
        wall = mine["wall_us"] / min(some[direction]["wall_us"] for some in theirs.values())
        cells = [
            f"{case}, {dtype}",
            *_pairs(ours, theirs[best], "device_us"),
            f"{mine['device_us'] / own['device_us']:.2f}",
        ]
        cells += [f"{mine['host_us']:,.0f} / {own['host_us']:,.0f}", f"{wall:.2f}"]
        chosen: Texts = "its own choice", "PyTorch の選択"
        cells.append(best.removeprefix("PyTorch").strip() or chosen[language])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pairs(ours: Entry, theirs: Entry, key: str) -> Iterator[str]:
    """Ours and theirs of both directions; nothing where there is no such direction."""
    for direction in ("forward", "both"):
        both = [
            f"{some[direction][key]:,.{0 if some[direction][key] >= 100 else 1}f}"
            for some in (ours, theirs)
            if direction in some
        ]
        yield " / ".join(both) if len(both) == 2 else ""


def cuda_training(language: int) -> str:
    """A step, what the device has of it, and an epoch."""
    run = Run()
    steps = run.item("training", "step").get("contenders", {})
    names = [OURS, *(name for name in steps if name != OURS)]
    missing = NOT_MEASURED[language]
    profiles = [run.item("training", f"profile, {name}") for name in names]
    epochs = [run.item("training", f"epoch, {name}") for name in names]
    titles: tuple[Texts, ...] = (
        ("a step, ms", "1 ステップ、ms"),
        ("the device's share of it, ms (launches)", "そのうちデバイス、ms（起動回数）"),
        ("an epoch's 352 steps, s", "1 エポックの 352 ステップ、秒"),
        ("exact matches on the held-out dates after it", "その後、学習に使わない日付の正解率"),
    )
    rows = [
        [f"{steps[name]['ms']:.2f}" if "ms" in steps[name] else missing for name in names],
        [f"{1e-3 * x['us']:.2f} ({x['launches']:.0f})" if "us" in x else missing for x in profiles],
        [f"{float(x['seconds_of_steps']):.2f}" if "seconds_of_steps" in x else missing for x in epochs],
        [f"{100 * float(x['accuracy']):.2f}%" if "accuracy" in x else "" for x in epochs],
    ]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    lines += [f"| {title[language]} | {' | '.join(cells)} |" for title, cells in zip(titles, rows, strict=True)]
    return "\n".join(lines)


def host_time(language: int) -> str:
    """The host's time of calls, on no device: before this release's work on it and now, if both were measured."""
    files = [RESULTS / f"host_time{suffix}.json" for suffix in ("_before", "")]
    tables = [json.loads(path.read_text(encoding="utf-8"))["rows"] for path in files if path.exists()]
    lines = _headed("host", language)
    keys = (("launches", "g"), ("copies", "g"), ("host_us", ",.0f"), ("floor_us", ",.0f"), ("ratio", ".1f"))
    for last in tables[-1] if tables else ():
        rows = [row for table in tables for row in table if row["call"] == last["call"]]
        cells = [" → ".join(format(row[key], how) for row in rows) for key, how in keys]
        lines.append(f"| {last['call']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _headed(table: str, language: int) -> list[str]:
    heading = HEADINGS[table][language]
    return [f"| {heading} |", "| --- |" + " --- |" * heading.count("|")]


BLOCKS: dict[str, Callable[[int], str]] = {
    "cuda": cuda,
    "cuda-attention": cuda_attention,
    "cuda-training": cuda_training,
    "host-time": host_time,
}


def rewritten(page: str) -> str:
    """A page with the figures of the files."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return BLOCK.sub(lambda found: f"{found[1]} -->\n{BLOCKS[found[1]](PAGES[page])}\n", text)


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(rewritten(name), encoding="utf-8")
