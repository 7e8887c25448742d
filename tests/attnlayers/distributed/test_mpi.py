"""Training by ranks that mpiexec starts: the same losses as by one process, and one line where it ends early."""

import os
import random
import re
import signal
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from support import ROOT

from attnlayers.training import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

COMMAND = "from attnlayers.cli import main; main()"
NO_PICTURES = """
from attnlayers.training import RunFolder, trainer
trainer.training_figure = trainer.attention_figure = RunFolder.write_figure = lambda *arguments: None
"""
TINY: tuple[object, ...] = ("--epochs", 2, "--hidden-size", 8, "--embedding-size", 4, "--batch-size", 11, "--lr", 0.01)
KINDS: dict[str, tuple[object, ...]] = {
    "seq2seq": ("--dropout", 0.2, "--schedule", "cosine", "--warmup", 5),
    "transformer": ("--architecture", "transformer", "--heads", 2, "--depth", 1, "--dropout", 0.2, "--warmup", 5),
}
RANK = "import os; rank = int(os.environ['PMI_RANK'])"
SLOW = """
import time
from attnlayers.training import Trainer
step = Trainer._step
def slow(*arguments):
    time.sleep(0.05)  # or all is over before the signal comes
    return step(*arguments)
Trainer._step = slow
"""
EVERY_STEP = """
from attnlayers.training import Trainer
begin = Trainer.__init__
def often(*arguments, **options):
    begin(*arguments, **options, checkpoint_seconds=0)
Trainer.__init__ = often
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """300 pairs of a few letters, and the same letters; a long one among them, whose batch it has for itself."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcd", k=rng.randint(1, 4))) for _ in range(299)] + ["abcd" * 12]
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{word}\t{word}\n" for word in words), encoding="utf-8")
    return path


def command(*arguments: object, before: str = "") -> tuple[object, ...]:
    """`attnlayers train`, without pictures, after some code."""
    return "-c", f"{before}\n{NO_PICTURES}\n{COMMAND}", "train", *arguments


def assert_ended_well(ended: Any) -> None:
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    assert ended.stderr == ""


def losses(path: Path) -> list[tuple[Any, ...]]:
    """What the table of metrics says, without times."""
    checkpoint = RunFolder.open(path).read_checkpoint()
    assert checkpoint is not None
    keys = ("epoch", "step", "loss", "held_out_loss", "accuracy", "chrf")
    return [tuple(row[key] for key in keys) for row in checkpoint.progress["metrics"]]


def weights(path: Path) -> dict[str, np.ndarray]:
    checkpoint = RunFolder.open(path).read_checkpoint()
    assert checkpoint is not None
    return checkpoint.weights | checkpoint.optimizer


def assert_same_to_rounding(path: Path, other: Path) -> None:
    for row, same in zip(losses(path), losses(other), strict=True):
        assert row[:2] == same[:2]
        for value, expected in zip(row[2:4], same[2:4], strict=True):
            assert (value is None) == (expected is None)
            assert value is None or value == pytest.approx(expected, rel=2e-5)


def assert_same_bits(path: Path, other: Path) -> None:
    assert losses(path) == losses(other)
    one, two = weights(path), weights(other)
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes(), name


def started(process: Any, run: Path) -> None:
    """Return when the first checkpoint of a run is there."""
    begun = monotonic()
    while not (run / "checkpoint.safetensors").exists():
        if process.poll() is not None or monotonic() - begun > 60:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"no checkpoint: {process.communicate()}")
        sleep(0.02)


WRITE_PID = f"{RANK}; open(f'rank {{rank}}', 'w').write(str(os.getpid()))"


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_ranks_trains_alike(mpiexec: Any, pairs: Path, tmp_path: Path, kind: str) -> None:
    options = (pairs, *TINY, *KINDS[kind])
    for size in (1, 2, 3):
        ended = mpiexec(*command(*options, "--out", f"by {size}"), options=("-n", size))
        assert_ended_well(ended)
        first, *epochs, _, _ = ended.stdout.splitlines()
        assert (f", by {size} ranks on 1 host over MPICH " in first) == (size > 1)
        assert len(epochs) == 2, "rank 0 alone prints"
        assert_same_to_rounding(tmp_path / f"by {size}", tmp_path / "by 1")
    assert_ended_well(mpiexec(*command(*options, "--out", "again")))
    assert_same_bits(tmp_path / "by 2", tmp_path / "again")


def test_another_number_of_ranks_goes_on(mpiexec: Any, pairs: Path, tmp_path: Path) -> None:
    """Stopped by one rank alone after some steps, with three ranks; gone on with by two."""
    options = (pairs, *TINY, *KINDS["seq2seq"])
    stop = f"""{RANK}
from attnlayers.training import Trainer
step = Trainer._step
def and_stop(trainer, *arguments):
    if rank == 2 and trainer.optimizer.steps == 7:
        trainer.stop()
    return step(trainer, *arguments)
Trainer._step = and_stop
"""
    ended = mpiexec(*command(*options, "--out", "run", before=stop), options=("-n", 3))
    assert ended.returncode == 130, ended
    assert ended.stderr == ""
    assert ended.stdout.endswith("stopped and saved; go on with: attnlayers train --resume --out run\n")
    checkpoint = RunFolder.open(tmp_path / "run").read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.progress["optimizer_steps"] == 8
    assert_ended_well(mpiexec(*command("--resume", "--out", "run")))
    assert_ended_well(mpiexec(*command(*options, "--out", "undisturbed"), options=("-n", 1)))
    assert_same_to_rounding(tmp_path / "run", tmp_path / "undisturbed")


def test_a_rank_is_killed(mpiexec: Any, pairs: Path, tmp_path: Path) -> None:
    """All end at once, and the run goes on from its checkpoint to the same bits."""
    options = (pairs, *TINY, *KINDS["transformer"])
    process = mpiexec.start(*command(*options, "--out", "run", before=WRITE_PID + SLOW + EVERY_STEP))
    started(process, tmp_path / "run")
    os.kill(int((tmp_path / "rank 1").read_text()), signal.SIGKILL)
    begun = monotonic()
    ended = mpiexec.end(process)
    assert monotonic() - begun < 10
    assert ended.returncode != 0
    assert not losses(tmp_path / "run") or losses(tmp_path / "run")[-1][1] < 54
    assert_ended_well(mpiexec(*command("--resume", "--out", "run")))
    assert_ended_well(mpiexec(*command(*options, "--out", "undisturbed")))
    assert_same_bits(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("to", ["mpiexec", "rank 1"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_with_a_checkpoint(
    mpiexec: Any, pairs: Path, tmp_path: Path, number: signal.Signals, to: str
) -> None:
    process = mpiexec.start(*command(pairs, *TINY, "--out", "run", before=WRITE_PID + SLOW + EVERY_STEP))
    started(process, tmp_path / "run")
    os.kill(process.pid if to == "mpiexec" else int((tmp_path / to).read_text()), number)
    begun = monotonic()
    ended = mpiexec.end(process)
    assert monotonic() - begun < 10
    assert ended.returncode == 130, ended
    said = [line for line in ended.stdout.splitlines() if "stopped and saved; go on with: " in line]
    assert len(said) == 1
    assert "error" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(weights(tmp_path / "run")) > 0


def test_a_rank_that_does_not_answer(mpiexec: Any, pairs: Path, tmp_path: Path) -> None:
    """Interrupted, the others do not wait for it."""
    grace = "from attnlayers.cli import _runs; _runs.GRACE_SECONDS = 1.0\n"
    process = mpiexec.start(*command(pairs, *TINY, "--out", "run", before=grace + WRITE_PID + SLOW + EVERY_STEP))
    started(process, tmp_path / "run")
    os.kill(int((tmp_path / "rank 1").read_text()), signal.SIGSTOP)
    os.kill(int((tmp_path / "rank 0").read_text()), signal.SIGTERM)
    begun = monotonic()
    ended = mpiexec.end(process)
    assert monotonic() - begun < 15
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[:1] == [
        "attnlayers: error: interrupted; --resume goes on from the last checkpoint"
    ], ended


def fails(ended: Any) -> str:
    """The one line that ranks fail with, without what every error begins with."""
    assert ended.returncode in (1, 2), ended
    return line_of(ended)


def line_of(ended: Any) -> str:
    """The one line on standard error, without what every error begins with."""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("attnlayers: error: ")
    return lines[0].removeprefix("attnlayers: error: ")


STEP = """
from attnlayers.models import AttentionSeq2seq
forward, steps = AttentionSeq2seq.forward, [0]
def fail(*arguments):
    steps[0] += 1
    if steps[0] == 5:
        {what}
    return forward(*arguments)
AttentionSeq2seq.forward = fail
"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (RANK + STEP.format(what="if rank == 1: raise MemoryError"), r"rank 1 on \S+: there is not enough memory: "),
        (RANK + STEP.format(what="raise MemoryError"), "there is not enough memory: "),
        (RANK + STEP.format(what="arguments[0].params[0][...] = float('nan')"), "the loss became nan in epoch 1: "),
        (
            EVERY_STEP + RANK + STEP.format(what="arguments[0].params[0][0, 0] += rank"),
            r"ranks differ in weights after step 5: \w+ on rank 1 \(\S+\), \w+ on rank 0 \(\S+\): go on from the last ",
        ),
        (
            EVERY_STEP + f"{RANK}\nimport errno\nfrom attnlayers.training import run\ndef full(path, write):\n"
            "    if 'checkpoint' in path.name:\n"
            "        raise run.RunError(f'{path} cannot be written: {os.strerror(errno.ENOSPC)}')\n"
            "    return whole(path, write)\nwhole, run.write_whole = run.write_whole, full",
            "run/checkpoint.safetensors cannot be written: No space left on device",
        ),
    ],
)
def test_what_fails_is_told_once(mpiexec: Any, pairs: Path, before: str, message: str) -> None:
    begun = monotonic()
    assert re.match(message, fails(mpiexec(*command(pairs, *TINY, "--out", "run", before=before))))
    assert monotonic() - begun < 45


@pytest.mark.parametrize(
    ("options", "before", "message"),
    [
        (("--lr", 0.5), "", r"ranks differ in --lr: 0\.5 on rank 1 \(\S+\), 0\.01 on rank 0 \(\S+\): start all"),
        (("--heads", 2), "", r"ranks differ in --heads: 2 on rank 1 \(\S+\), not given on rank 0"),
        ((), "import attnlayers; attnlayers.__version__ = '9'", r"ranks differ in attnlayers: 9 on rank 1 \(\S+\), "),
        (
            (),
            "import platform; platform.python_version_tuple = lambda: ('4', '0', '0')",
            "ranks differ in Python: 4.0 ",
        ),
        (
            (),
            "import os; os.environ['ATTN_BACKEND'] = 'array_api_strict'",
            "ranks differ in the backend: array_api_str",
        ),
        ((), "import numpy; numpy.__version__ = '9'", r"ranks differ in library: numpy 9 on rank 1 \(\S+\), numpy "),
        (
            (),
            "import os; os.mkdir('local'); os.chdir('local')",
            r"rank 1 on \S+: the run folder \S+local/run, which rank",
        ),
        ((), "from attnlayers.cli import _runs; _runs._digest = lambda path: path.name", "ranks differ in checkpoint"),
    ],
)
def test_ranks_that_differ_are_refused(
    mpiexec: Any, pairs: Path, options: tuple[object, ...], before: str, message: str
) -> None:
    before += "\nimport attnlayers.cli._runs as runs; runs.VISIBLE_SECONDS = 1.0" if "chdir" in before else ""
    other = command(pairs, *TINY, *options, "--out", "run", before=before)
    first = command(pairs, *TINY, "--out", "run")
    ended = mpiexec(*first, ":", "-n", 1, sys.executable, *other, options=("-n", 1))
    assert re.match(message, fails(ended)), ended.stderr
    assert not (pairs.parent / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--batch-size", 1),
            "every batch is shared by 2 ranks, and each needs a pair, got --batch-size 1: start fewer",
        ),
        (("--epochs", "four"), "Invalid value for '--epochs'"),
        (("--unit", "word", "--min-count", 10**6), "no word occurs 1000000 times or more"),
        (("--unit", "subword", "--vocab-size", 5), ""),
        (("--columns", "1,3"), ""),
    ],
)
def test_what_all_are_told_is_told_once(mpiexec: Any, pairs: Path, options: tuple[object, ...], message: str) -> None:
    assert fails(mpiexec(*command(pairs, *TINY, "--out", "run", *options))).startswith(message)
    assert not (pairs.parent / "run").exists()


def test_fewer_pairs_than_ranks(mpiexec: Any, pairs: Path) -> None:
    """Ten pairs, one of them held out, for ten ranks."""
    pairs.write_text("".join(f"a{'b' * i}\tb\n" for i in range(10)), encoding="utf-8")
    message = fails(mpiexec(*command(pairs, *TINY, "--out", "run"), options=("-n", 10)))
    assert message.startswith("every batch is shared by 10 ranks, and each needs a pair, got 9 pairs to learn from: ")


@pytest.mark.parametrize("asked", ["", "3"])
def test_ranks_of_a_host_share_its_cpus(mpiexec: Any, asked: str) -> None:
    code = """
import os
from attnlayers import distributed
with distributed.join() as ranks:
    from attnbackends import backend
    for found in ranks.gather((backend.workers.count, len(os.sched_getaffinity(0)))):
        print(*found) if ranks.first else None
"""
    ended = mpiexec("-c", code, ATTN_THREADS=asked)
    assert_ended_well(ended)
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        threads, cpus = map(int, line.split())
        assert threads == (int(asked) if asked else max(1, cpus // 2))


def test_a_signal_before_there_is_anything_to_save(mpiexec: Any, pairs: Path) -> None:
    """While data are read, say: it interrupts at once."""
    before = f"""{RANK}
import signal
from attnlayers.cli import _runs
digests = _runs._digests
def interrupted(run):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return digests(run)
_runs._digests = interrupted
"""
    ended = mpiexec(*command(pairs, *TINY, "--out", "run", before=before))
    assert ended.returncode == 130, ended
    assert re.fullmatch(r"rank 1 on \S+: interrupted; --resume goes on from the last checkpoint", line_of(ended))


def test_a_loop_of_ones_own(mpiexec: Any, tmp_path: Path) -> None:
    """The example of the documentation, as it stands: one rank and two come to the same losses."""
    text = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "sort.py").write_text(example, encoding="utf-8")
    said = []
    for size in (1, 2):
        ended = mpiexec("sort.py", options=("-n", size))
        assert_ended_well(ended)
        said.append([float(number) for number in re.findall(r"loss (\S+)", ended.stdout)])
    assert len(said[0]) == 3
    assert said[1] == pytest.approx(said[0], abs=2e-4)
    assert said[0][-1] < said[0][0]


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("raise ValueError('own')", 1, "ValueError: own"),
        ("raise SystemExit(5)", 5, ""),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_an_error_in_a_loop_of_ones_own_ends_all(mpiexec: Any, what: str, code: int, said: str) -> None:
    """The other rank waits for it, and would for ever."""
    program = f"from attnlayers import distributed\nwith distributed.join() as ranks:\n    if ranks.rank == 1: {what}\n"
    ended = mpiexec("-c", program + "    ranks.gather(0)\n    print('went on')")
    assert ended.returncode == code, ended
    assert ended.stdout == ""
    assert said in ended.stderr
