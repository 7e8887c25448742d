"""The run for a device: its workers, its plugin for pytest, its table, and all of it on a device that is not there."""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import environment, unavailable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROOT, run_python

from attnbackends import available_backends
from attnlayers.bench.contenders import LeftOutError
from attnlayers.bench.processes import Failure, in_process
from benchmarks.device import sanitizer, suite, table
from benchmarks.device.clock import times
from benchmarks.device.results import Section, read
from benchmarks.device.workers import Item, measured

SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
STEPS = ["versions", "exactness", "tests", "sanitizer", "attention", "training", "recurrent", "tuning"]

# -- workers


def ends_well(number: int) -> dict[str, Any]:
    return {"number": number, "process": os.getpid()}


def raises(number: int) -> dict[str, Any]:
    raise ArithmeticError(f"a cause {number}")


def is_left_out(number: int) -> dict[str, Any]:
    raise LeftOutError(f"no such kernel {number}")


def dies(number: int) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hangs(number: int) -> dict[str, Any]:
    time.sleep(600)
    return {}


KINDS = {"ends well": ends_well, "raises": raises, "is left out": is_left_out, "dies": dies, "hangs": hangs}


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 3)])
def test_every_item_has_its_entry(seed: int, count: int) -> None:
    kinds = random.Random(seed).sample([*KINDS, "ends well"], len(KINDS) + 1)
    limit = 6.0  # a worker that hangs holds the others up for so long
    items = [Item(f"{i}", KINDS[kind], (i,), limit if kind == "hangs" else 60, False) for i, kind in enumerate(kinds)]
    found: dict[str, dict[str, Any]] = {}
    measured(items, lambda entry: found.update({entry["item"]: entry}), 120.0, count)
    assert len(found) == len(kinds)
    for i, kind in enumerate(kinds):
        entry = found[f"{i}"]
        reason = entry.get("failed", {}).get("reason", "")
        if kind == "ends well":
            assert entry["number"] == i
        elif kind == "is left out":
            assert entry["left_out"] == f"no such kernel {i}"
        elif kind == "raises":
            assert reason == f"ArithmeticError: a cause {i}"
            assert "in raises" in entry["failed"]["traceback"]
        else:
            assert ("SIGKILL" if kind == "dies" else "no answer within 6 s: killed") in reason


def test_a_step_ends_in_time() -> None:
    found: list[dict[str, Any]] = []
    start = time.monotonic()
    measured([Item(f"{i}", hangs, (i,), 60, False) for i in range(3)], found.append, 7.0, 2)
    assert time.monotonic() - start < 40
    assert [entry["left_out"].partition(" ")[0] for entry in found] == ["cut", "cut", "not"]


def locks_and_hangs(path: Path) -> None:
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("held")
    file.flush()
    time.sleep(600)


def starts_another(path: Path) -> dict[str, Any]:
    in_process(locks_and_hangs, path)
    return {}


def test_what_a_worker_started_ends_with_it_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lock"
    found: list[dict[str, Any]] = []
    measured([Item("starts another", starts_another, (path,), 5, False)], found.append, 60.0)
    assert found[0]["failed"]["reason"] == "no answer within 5 s: killed"
    assert path.read_text() == "held"
    end = time.monotonic() + 30
    with path.open() as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < end, "the other process is still there"
                time.sleep(0.05)
    assert capfd.readouterr() == ("", "")


def warns() -> dict[str, Any]:
    warnings.warn("a word of a library", UserWarning, stacklevel=1)
    return {}


def test_warnings_stay_out_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    measured([Item("warns", warns, (), 60, False)], lambda entry: None, 60.0)
    assert capfd.readouterr() == ("", "")


def test_a_section_is_whole_after_every_item(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"before": {"items": [1]}}))
    section = Section(tmp_path, "step")
    for number in range(2):
        section.add({"item": str(number)})
        found = read(tmp_path)
        assert found["before"] == {"items": [1]}
        assert [entry["item"] for entry in found["step"]["items"]] == [str(i) for i in range(number + 1)]
        assert found["step"]["state"] == "begun"
    section.end()
    assert read(tmp_path)["step"]["state"] == "ended"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_results_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    """A failure within the repository, an installed package, Python's library and a temporary folder."""
    program = tmp_path / "program.py"
    program.write_text("def given(*arguments):\n    raise ValueError(arguments)\n")
    found: dict[str, Any] = {}
    try:
        exec(compile(program.read_text(), program, "exec"), found)
        np.errstate(all="ignore")(json.loads)("{}", object_hook=found["given"])
    except ValueError as error:
        found = {"failed": asdict(Failure.of("measuring", error))}
    text = found["failed"]["traceback"]
    for folder in (str(ROOT), "site-packages", str(tmp_path)):
        assert folder in text
    Section(tmp_path, "step").add({"item": "fails", "places": [[str(ROOT / "Makefile")]], **found})
    (entry,) = read(tmp_path)["step"]["items"]
    names = re.findall(r'File "([^"]*)"', entry["failed"]["traceback"])
    assert {"tests/benchmarks/test_device_run.py", "json/decoder.py"} <= {*names}
    assert any(name.startswith("numpy/") for name in names)
    assert not [name for name in names if name.startswith(("/", "."))]
    assert entry["places"] == [["Makefile"]]


# -- times


class SlowDevice:
    """Events of a device that takes `each` for a call and `held` for a hold, in a queue behind the host's clock."""

    def __init__(self, each: float, host: float, held: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.each, self.host, self.held = each, host, held
        self.now = self.free = 0.0
        monkeypatch.setattr("benchmarks.device.clock.time.perf_counter", lambda: self.now)

    def launch(self, i: int) -> None:
        self.now += self.host
        self.free = max(self.free, self.now) + self.each

    def record(self) -> float:
        return max(self.free, self.now)

    def seconds(self, begin: float, end: float) -> float:
        self.now = max(self.now, end)
        return end - begin

    def synchronize(self) -> None:
        self.now = max(self.now, self.free)

    def hold(self) -> None:
        self.free = max(self.free, self.now) + self.held


@given(each=st.floats(1e-6, 1e-3), host=st.floats(1e-6, 1e-4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_device_and_host_are_told_apart(each: float, host: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        device = SlowDevice(each, host, 3e-4, patch)
        found = times(device.launch, device)
    assert found["host_us"] == pytest.approx(1e6 * host, abs=0.01)
    assert found["device_us"] == pytest.approx(1e6 * each, abs=0.01)
    assert found["wall_us"] == pytest.approx(1e6 * (each + host), abs=0.01)
    assert found["events_us"] == pytest.approx(1e6 * max(each, host), rel=0.06, abs=0.2)


# -- tests in processes that may be lost

POISONED = """
import os, pytest
@pytest.mark.parametrize("library", ["cupy", "numpy"])
def test_right(library): pass
def test_cupy_skipped(): pytest.skip("no reason")
def test_cupy_wrong(): assert False
def test_cupy_poisons(): raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
def test_cupy_behind(): pass
def test_cupy_dies():
    os.write(2, b"words of a library")
    os.kill(os.getpid(), 11)
def test_cupy_last(): pass
"""


def test_a_file_goes_on_behind_a_test_that_poisons_or_kills_its_process(tmp_path: Path) -> None:
    path = tmp_path / "test_poisoned.py"
    path.write_text(POISONED)
    (tmp_path / suite.FILE).write_text("<testsuites/>")
    entry = suite.tested(path, tmp_path)
    assert entry["counts"] == {"passed": 3, "failed": 3, "skipped": 1}
    assert [name.partition("::")[2] for name in entry["failures"]] == [
        "test_cupy_wrong", "test_cupy_poisons", "test_cupy_dies: its process ended",
    ]  # fmt: skip
    assert entry["failed"]["reason"].split(" | ") == [
        "test_cupy_wrong: assert False",
        "test_cupy_poisons: RuntimeError: cudaErrorIllegalAddress: an illegal memory access was encountered",
        "test_cupy_dies: its process ended: SIGSEGV",
    ]
    last = entry["failed"]["traceback"].partition("test_cupy_dies: its process ended:\n")[2]
    assert "words of a library" in last
    assert "in test_cupy_dies" in last
    names = re.findall(r'testcase [^>]*name="([^"]*)"', (tmp_path / suite.FILE).read_text())
    assert {"test_right[cupy]", "test_cupy_wrong", "test_cupy_poisons", "test_cupy_last"} <= {*names}


def test_a_file_that_cannot_be_collected(tmp_path: Path) -> None:
    path = tmp_path / "test_broken.py"
    path.write_text("import no_such_module")
    (tmp_path / suite.FILE).write_text("<testsuites/>")
    with pytest.raises(RuntimeError, match="no_such_module"):
        suite.tested(path, tmp_path)


# -- sanitizers

TOOL = """#!/bin/sh
echo '========= COMPUTE-SANITIZER'
echo '========= {words}'
exit {code}
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(words: str, code: int) -> None:
        path = tmp_path / "compute-sanitizer"
        path.write_text(TOOL.format(words=words, code=code))
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return write


def test_a_sanitizer_that_finds_nothing_something_or_breaks(tool: Any) -> None:
    tool("ERROR SUMMARY: 0 errors", 0)
    assert sanitizer.checked("memcheck", "odd") == {"summary": "ERROR SUMMARY: 0 errors"}
    tool("ERROR SUMMARY: 3 errors", sanitizer.FOUND)
    with pytest.raises(RuntimeError, match=r"^ERROR SUMMARY: 3 errors"):
        sanitizer.checked("memcheck", "odd")
    for words, code in (("Device not supported", 0), ("ERROR SUMMARY: 0 errors", 1)):
        tool(words, code)
        with pytest.raises(RuntimeError, match=rf"^racecheck ended with code {code}"):
            sanitizer.checked("racecheck", "odd")


# -- the table


def test_a_table_of_nothing() -> None:
    lines = table.lines({})
    assert lines[0] == "device: none answered"
    assert lines[1].count("MISSING") == len(STEPS)


def test_a_table_has_at_most_so_many_lines() -> None:
    measured_us = {"wall_us": 30.0, "host_us": 20.0, "events_us": 20.0, "device_us": 10.0}
    theirs = {key: 2 * value for key, value in measured_us.items()}
    failure = {"stage": "measuring", "reason": "a cause", "traceback": "a trace"}
    rows = [
        {
            "item": f"{case}, {dtype}",
            "device": "a device",
            "contenders": {
                "attnlayers": {"both": measured_us, "error": 1e-6},
                "PyTorch flash": {"both": theirs, "error": 2e-6},
                "PyTorch cudnn": {"left_out": "refuses"},
                "PyTorch math": {"failed": failure},
            },
        }
        for case in ("book", "short", "mid", "long", "causal", "longer", "decode", "huge")
        for dtype in ("float32", "float16", "bfloat16")
    ]
    found = {"attention": {"state": "ended", "seconds": 9.0, "items": rows}}
    found["exactness"] = {"state": "begun", "seconds": 9.0, "items": [{"item": "odd", "failed": failure}]}
    lines = table.lines(found)
    assert len(lines) <= table.LINES
    assert all(len(line) <= table.WIDTH for line in lines)
    text = "\n".join(lines)
    assert "exactness CUT OFF" in text
    assert "attention 24/0/0" in text
    assert "FAILED exactness: odd: a cause" in text
    assert "FAILED: 17 more in results.json" in text
    assert (
        "book, float32 both: 10.0 / 20.0; wall 0.50 (PyTorch flash), device 0.50 (PyTorch flash); 1e-06, 2e-06" in text
    )


# -- the whole


def test_limits_leave_room_within_ten_minutes() -> None:
    text = SCRIPT.read_text()
    limits = [int(seconds) for seconds in re.findall(r"\[\w+\]=(\d+)", text)]
    limits += [int(seconds) for seconds in re.findall(r"(?:step kit |--kill-after=1 \$\(\()(\d+)", text)]
    assert len(limits) == len(STEPS) + 3
    assert sum(limits) + len(limits) < 560, "each may take a second more to be killed"


def test_a_machine_without_cuda_is_told_so(tmp_path: Path) -> None:
    if unavailable() is None or available_backends()["cupy"].usable:
        pytest.skip("this machine has CUDA, or what stands for it")
    changes = {"PYTHON": sys.executable, "GPU_CHECK_STEPS": "table"}
    command = ["bash", str(SCRIPT), str(tmp_path)]
    ended = subprocess.run(command, env=os.environ | changes, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "gpu_check: CUDA cannot be used here; the line above says why"
    assert "BackendError: CuPy" in ended.stdout


def rehearse(folder: Path, steps: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    changes = {"GPU_CHECK_REHEARSAL": "short", "GPU_CHECK_STEPS": steps, "PYTHON": sys.executable} | environ
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder)], env=environment() | changes, capture_output=True, text=True, check=False
    )


def test_a_rehearsal_leaves_every_step_and_the_table(tmp_path: Path) -> None:
    ended = rehearse(tmp_path, " ".join([*STEPS, "table"]), GPU_CHECK_BREAK="exactness:raise,attention:die")
    found = read(tmp_path)
    assert [*found] == [step for step in STEPS if step != "exactness"], ended.stdout
    assert {section["state"] for section in found.values()} == {"ended"}
    for step, section in found.items():
        assert section["items"], step
        assert {entry["device"] for entry in section["items"]} == {"fake"}
        failed = [entry["item"] for entry in section["items"] if "failed" in entry]
        assert failed == (["a worker that dies"] if step == "attention" else []), (step, section["items"])
    assert "exit code 9" in found["attention"]["items"][0]["failed"]["reason"]
    assert len(found["attention"]["items"]) > 1
    lines = (tmp_path / "table.txt").read_text().splitlines()
    assert lines[0].startswith("device: fake (a rehearsal")
    assert "exactness MISSING" in lines[1]
    assert len(lines) <= table.LINES
    assert any(line.startswith("launch, us") for line in lines)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "gpu_check: failed: attention (exit code 1)"
    assert "gpu_check: failed: exactness (exit code 1)" in ended.stdout
    assert 1 <= len(files(tmp_path)) <= 8
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in files(tmp_path))


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    ended = rehearse(tmp_path, "table exactness", GPU_CHECK_BREAK="table:hang", GPU_CHECK_STRETCH="1")
    assert "gpu_check: failed: table (exit code 124)" in ended.stdout
    assert read(tmp_path)["exactness"]["state"] == "ended"


def test_a_rehearsal_with_kernels_that_do_nothing(tmp_path: Path) -> None:
    rehearse(tmp_path, "tuning table", CUDA_ON_CPU_MODE="idle")
    section = read(tmp_path)["tuning"]
    assert section["state"] == "ended"
    assert not [entry for entry in section["items"] if "failed" in entry]
    assert (tmp_path / "table.txt").exists()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


PYTORCH_ALONE = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from benchmarks.device import attention, training, tuning
case = attention.cases()[0]
found = [
    attention.torch_timed(case, case.draw()[:1], "float32", None),
    training.torch_alone(), training.torch_epoch(True), training.profiled_torch(False), tuning.torch_products(),
]
print(json.dumps(found))
"""


def test_what_a_run_asks_of_pytorch_runs_on_the_cpu() -> None:
    pytest.importorskip("torch")
    ended = run_python(PYTORCH_ALONE, timeout=300, GPU_CHECK_REHEARSAL="short")
    assert ended.returncode == 0, ended.stderr
    attention, steps, epoch, profile, products = json.loads(ended.stdout.splitlines()[-1])
    assert {"PyTorch", "PyTorch flash", "PyTorch efficient", "PyTorch cudnn", "PyTorch math"} <= {*attention}
    for entry in attention.values():
        assert ("both" in entry) is not ("left_out" in entry), attention
    assert attention["PyTorch"]["both"].keys() == {"wall_us", "host_us", "events_us", "device_us"}
    assert {*steps} == {"PyTorch, TF32", "PyTorch, float32"}
    assert min(entry["ms"] for entry in steps.values()) > 0
    assert epoch["steps"] == 2
    assert profile["kernels"]
    assert profile["us"] > 0
    assert {*products["rates"]} == {"float32", "TF32", "bfloat16", "float16"}


BENCH = """
from attnlayers.bench import cases
cases.TABLE = tuple(cases.Case(name, 2, 19, 23, 8) for name in ("short", "mid"))
from attnlayers.cli import main
main()
"""


@pytest.fixture
def on_the_bench(tmp_path: Path) -> dict[str, str]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    roots = os.pathsep.join(str(ROOT / part) for part in ("src", "backends"))
    found = environment()
    return found | {"PYTHONPATH": f"{found['PYTHONPATH']}{os.pathsep}{roots}"}


def test_the_benchmark_on_a_device_that_is_not_there(on_the_bench: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", BENCH, "bench", "--cases", "short,mid", "--backends", "cupy"]
    command += ["--peers", "numpy", "--seconds", "0.01", "--out", str(tmp_path)]
    ended = subprocess.run(command, env=on_the_bench, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    report = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["case"], row["contender"]) for row in report["rows"]] == [
        (case, "CuPy, plain") for case in ("short", "mid") for _ in range(3)
    ]
    assert report["failed"] == report["wrong"] == []
    assert "no device" in report["machine"]["cupy"]
