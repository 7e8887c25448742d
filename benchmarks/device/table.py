"""What a run found, on at most 48 lines: failures, ratios, microseconds of the device and of the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .results import Entry, read

LINES = 48
STEPS = ("versions", "exactness", "tests", "sanitizer", "attention", "training", "recurrent", "tuning")
FAILURES = 9
"""Lines for failures at most; `results.json` has all of them."""

WIDTH = 180

OURS = "attnlayers"


def print_table(folder: Path) -> None:
    """Print it, and leave it in ``table.txt``."""
    text = "\n".join(lines(read(folder))) + "\n"
    (folder / "table.txt").write_text(text, encoding="utf-8")
    print(text, end="")


def lines(found: dict[str, Any]) -> list[str]:
    """All lines, whatever is missing."""
    parts = [*_heading(found), *_failures(found), *_kernels(found), *_training(found), *_attention(found)]
    parts += [*_recurrent(found), *_tuning(found)]
    if len(parts) > LINES:
        parts = [*parts[: LINES - 1], f"… {len(parts) - LINES + 1} lines more in results.json"]
    return [line[:WIDTH] for line in parts]


def _items(found: dict[str, Any], step: str) -> list[Entry]:
    items: list[Entry] = found.get(step, {}).get("items", [])
    return items


def _heading(found: dict[str, Any]) -> Iterator[str]:
    devices = {entry["device"] for step in STEPS for entry in _items(found, step) if "device" in entry}
    names = ", ".join(sorted(devices)) or "none answered"
    yield f"device: {names}{' (a rehearsal: no time of the device means anything)' if 'fake' in devices else ''}"
    counts = []
    for step in STEPS:
        items = _items(found, step)
        bad, out = (sum(key in entry for entry in items) for key in ("failed", "left_out"))
        if step not in found:
            counts.append(f"{step} MISSING")
            continue
        cut = "" if found[step]["state"] == "ended" else " CUT OFF"
        counts.append(f"{step}{cut} {len(items)}/{bad}/{out} {found[step]['seconds']:.0f} s")
    yield f"items/failed/left out: {'; '.join(counts)}"
    tests = [entry["counts"] for entry in _items(found, "tests") if "counts" in entry]
    sums = (f"{sum(counts[outcome] for counts in tests)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    yield f"tests: {', '.join(sums)}"


def _failures(found: dict[str, Any]) -> Iterator[str]:
    told = [f"FAILED {step}: {name}: {failure['reason']}" for step in STEPS for name, failure in _failed(found, step)]
    yield from told[: FAILURES - 1] if len(told) > FAILURES else told
    if len(told) > FAILURES:
        yield f"FAILED: {len(told) - FAILURES + 1} more in results.json"


def _failed(found: dict[str, Any], step: str) -> Iterator[tuple[str, Entry]]:
    for entry in _items(found, step):
        if "failed" in entry:
            yield entry["item"], entry["failed"]
        for name, some in entry.get("contenders", {}).items():
            if "failed" in some:
                yield f"{entry['item']}, {name}", some["failed"]


def _kernels(found: dict[str, Any]) -> Iterator[str]:
    compiled = [
        (f"{name} ({entry['item']})", local)
        for entry in _items(found, "versions")
        for name, (_, local) in entry.get("kernels", {}).items()
    ]
    spilled = [f"{name} {local} B" for name, local in compiled if local]
    if compiled:
        yield f"kernels: {len(compiled)} compiled; local memory: {', '.join(spilled) or 'none'}"


def _attention(found: dict[str, Any]) -> Iterator[str]:
    """A line for each case and dtype: ours, and the fastest of theirs by the device's time, forward with backward."""
    rows = [entry for entry in _items(found, "attention") if entry.get("contenders")]
    if rows:
        yield "attention: us of device / host of ours; ratio of wall, of device to PyTorch's fastest; error of both"
    for entry in rows:
        if entry["item"].startswith("T="):
            continue
        contenders = entry["contenders"]
        ours = contenders.get(OURS, {})
        direction = "both" if "both" in ours else "forward"
        theirs = {name: some for name, some in contenders.items() if name != OURS and direction in some}
        if direction not in ours:
            yield f"  {entry['item']}: ours: {_reason(ours)}"
            continue
        mine = ours[direction]
        line = f"  {entry['item']} {direction}: {mine['device_us']:.1f} / {mine['host_us']:.1f}"
        if theirs:
            by_wall = min(theirs, key=lambda name: theirs[name][direction]["wall_us"])
            by_device = min(theirs, key=lambda name: theirs[name][direction]["device_us"])
            wall = mine["wall_us"] / theirs[by_wall][direction]["wall_us"]
            device = mine["device_us"] / theirs[by_device][direction]["device_us"]
            line += f"; wall {wall:.2f} ({by_wall}), device {device:.2f} ({by_device})"
            line += f"; {_error(ours)}, {_error(theirs[by_device])}"
        yield line


def _training(found: dict[str, Any]) -> Iterator[str]:
    for entry in _items(found, "training"):
        if "contenders" in entry:
            some = entry["contenders"]
            mine = some.get(OURS, {}).get("ms")
            told = [f"{name} {one['ms']:.3f} ms" for name, one in some.items() if "ms" in one]
            told += [f"ratio {mine / one['ms']:.2f} ({name})" for name, one in some.items()
                     if mine and name != OURS and "ms" in one]  # fmt: skip
            yield f"training step: {'; '.join(told)}"
    entries = _items(found, "training")
    yield from _joined(f"{one['item']}: {one['us']:.0f} us in {one['launches']:.0f}" for one in entries if "us" in one)
    yield from _joined(
        f"{one['item']}: {float(one['seconds_of_steps']):.2f} s" for one in entries if "seconds_of_steps" in one
    )


def _recurrent(found: dict[str, Any]) -> Iterator[str]:
    """The LSTM: ours, and PyTorch's with TF32."""
    for entry in _items(found, "recurrent"):
        times = entry.get("times", {entry["item"]: entry})
        yield from _joined(f"LSTM {lstm_line(name, some)}" for name, some in times.items() if "both" in some)


def lstm_line(name: str, found: Entry) -> str:
    """Microseconds of the device / of the host, forward | forward with backward."""
    if "both" not in found:
        return f"{name}: {found.get('left_out') or found.get('failed')}"
    told = " | ".join(f"{found[way]['device_us']:.0f} / {found[way]['host_us']:.0f}" for way in ("forward", "both"))
    return f"{name}: {told}"


def _tuning(found: dict[str, Any]) -> Iterator[str]:
    by_name = {entry["item"]: entry for entry in _items(found, "tuning")}
    if "RawKernel" in (launch := by_name.get("empty launch", {})):
        told = (f"{name} {launch[name]['device_us']:.2f} / {launch[name]['host_us']:.2f}"
                for name in launch if isinstance(launch[name], dict))  # fmt: skip
        yield f"launch, us of device / host: {'; '.join(told)}"
    rates = [f"{name} {entry[key]:g} {key.replace('_per_', '/')}" for name, entry in by_name.items()
             for key in ("GB_per_s", "Tflop_per_s") if key in entry]  # fmt: skip
    of_torch = by_name.get("products, PyTorch", {}).get("rates", {})
    rates += [f"{name}, PyTorch {entry['Tflop_per_s']:g} Tflop/s" for name, entry in of_torch.items()]
    if rates:
        yield f"ceilings: {'; '.join(rates)}"
    for direction in ("forward", "both"):
        told = [
            f"{name.removeprefix('small, T=').replace(', D=', '/')} {ratio:.2f}"
            for name in by_name
            if name.startswith("small") and (ratio := _small_over_tiles(by_name, name, direction)) is not None
        ]
        if told:
            yield f"small over tiles, T/D, {direction}: {'; '.join(told)}"
    sized = [
        f"{name.removeprefix('tiles of ')} {entry['both']['device_us']:.0f}"
        for name, entry in by_name.items()
        if name.startswith("tiles of") and "device_us" in entry.get("both", {})
    ]
    if sized:
        yield f"tiles, both, us of device: {'; '.join(sized)}"


def _small_over_tiles(by_name: dict[str, Entry], name: str, direction: str) -> float | None:
    """The ratio of the device's times; None where one of them was not measured."""
    small, tiles = (
        by_name.get(some, {}).get(direction, {}).get("device_us") for some in (name, name.replace("small", "tiles"))
    )
    return small / tiles if small and tiles else None


def _joined(parts: Iterable[str]) -> Iterator[str]:
    """One line, or none."""
    if line := "; ".join(parts):
        yield line


def _reason(entry: Entry) -> str:
    return str(entry.get("left_out") or entry.get("failed", {}).get("reason", "nothing"))


def _error(entry: Entry) -> str:
    return f"{entry['error']:.0e}" if "error" in entry else "-"
