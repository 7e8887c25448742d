"""A contender that raises, hangs or is killed, at whatever stage, costs its own row and nothing else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnbackends import get_backend
from attnlayers.bench import duel as duels
from attnlayers.bench import memory, run, training
from attnlayers.bench.cases import Case
from attnlayers.bench.contenders import Contender, LeftOutError, Loops, Obvious, Ours
from attnlayers.bench.duel import OURS, duel
from attnlayers.bench.outcome import Outcome
from attnlayers.bench.peers import PEERS, Torch
from attnlayers.bench.processes import Failure, ProcessError, in_process
from attnlayers.bench.products import PRODUCTS
from attnlayers.bench.run import Part, Report, measure

CASE = Case("book", 2, 3, 5, 7, shared=True)
DIRECTIONS = ("forward", "backward", "both")
METHODS = ("__init__", "run", "pull", "wait", "to_numpy", "keep")


class BrokenError(Exception):
    pass


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds without a warm-up."""
    for module in (duels, training):
        monkeypatch.setattr(module, "paired", partial(module.paired, least=2, warm=0.0))


@contextmanager
def breaking(kind: type[Contender], method: str, calls: int, error: Exception) -> Iterator[list[int]]:
    """Let a method of a contender raise from its call number `calls` on; yields how often it raised."""
    right, count, raised = getattr(kind, method), [0], [0]

    def broken(self: Any, *arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raised[0] += 1
            raise error
        return right(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, method, broken)
        yield raised


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), calls=st.integers(0, 30), left_out=st.booleans())
def test_a_contender_that_raises(method: str, calls: int, left_out: bool) -> None:
    found = {"book's loops": Loops, "plain": Obvious}

    def peer(case: Case, sets: Any, backend: Any, dtype: str) -> Any:
        return {name: lambda kind=kind: kind(case, sets, backend, dtype) for name, kind in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PEERS, "loops", peer)
        error = LeftOutError("no such kernel") if left_out else BrokenError("a cause")
        with breaking(Loops, method, calls, error) as raised:
            outcome = duel(CASE, "numpy", "float32", "loops", 0.0)
    assert [row.direction for row in outcome.rows if row.contender == "plain"] == [*DIRECTIONS]
    rows = [row.direction for row in outcome.rows if row.contender == "book's loops"]
    if not raised[0]:
        assert (outcome.failed, outcome.left_out, rows) == ({}, {}, [*DIRECTIONS])
        return
    assert raised == [1], "asked again after it failed"
    assert rows == [*DIRECTIONS[: len(rows)]] != [*DIRECTIONS]
    if left_out:
        assert (outcome.failed, outcome.left_out) == ({}, {"book's loops": "no such kernel"})
        return
    (failure,) = outcome.failed.values()
    assert failure.reason == "BrokenError: a cause"
    assert "BrokenError: a cause\n" in failure.traceback
    assert "in broken" in failure.traceback
    assert failure.stage.split()[0] in ("making", "first", "warm-up", "timing")


@pytest.mark.parametrize(("precision", "right"), [(None, False), ("3xTF32", False), ("TF32", True)])
def test_precision_decides_what_may_differ(precision: str | None, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pull = Loops.pull
    monkeypatch.setattr(Loops, "pull", lambda self, *arguments: tuple(1.002 * x for x in pull(self, *arguments)))
    monkeypatch.setattr(Loops, "precision", precision)
    outcome = duel(CASE, "numpy", "float32", "loops", 0.0)
    assert [row.precision for row in outcome.rows] == [precision] * 3 * right
    assert list(outcome.wrong) == ["book's loops"] * (not right)


@pytest.mark.parametrize("method", METHODS)
def test_ours_that_raises(method: str) -> None:
    with breaking(Ours, method, 0, BrokenError("a cause")):
        outcome = duel(CASE, "numpy", "float32", "numpy", 0.0)
    assert list(outcome.failed) == [OURS]
    assert [row.direction for row in outcome.rows] == (["forward"] if method == "keep" else [])


def test_a_peer_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Any:
        raise BrokenError("a cause")

    monkeypatch.setitem(PEERS, "jax", broken)
    outcome = duel(CASE, "numpy", "float32", "jax", 0.0)
    assert (outcome.rows, outcome.failed["jax"].stage) == ([], "making")
    found = memory.added_memory(CASE, "numpy", "jax")
    assert isinstance(found["jax"], Failure)


def test_products_that_fail_cost_their_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duels, "Products", lambda *arguments: [][0])
    outcome = duel(CASE, "numpy", "float32", "loops", 0.0)
    assert list(outcome.failed) == [PRODUCTS]
    assert [(row.direction, row.products) for row in outcome.rows] == [(direction, None) for direction in DIRECTIONS]


@pytest.mark.parametrize("when", ["making", "first steps", "timing"])
def test_a_training_step_that_raises(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for name, value in {"N": 5, "H": 11, "T_ENC": 7, "T_DEC": 3}.items():
        monkeypatch.setattr(training, name, value)
    right = training.torch_step
    before = {"making": -1, "first steps": 2, "timing": training.FIRST_STEPS + 3}[when]

    def made(device: str, batches: Any, weights: Any, tf32: bool = False) -> Callable[[int], Any]:
        step, calls = right("cpu", batches, weights, tf32), [0]

        def counted(i: int) -> Any:
            calls[0] += 1
            if tf32 and calls[0] > before:
                raise BrokenError("a cause")
            return step(i)

        return counted if before >= 0 or not tf32 else [][0]

    monkeypatch.setattr(training, "torch_step", made)
    monkeypatch.setattr(training, "settings", lambda device: {"PyTorch, TF32": True, "PyTorch, float32": False})
    outcome = training.duel_of_steps("numpy", 0.0)
    assert [(row.contender, row.precision) for row in outcome.rows] == [("PyTorch, float32", None)]
    ((name, failure),) = outcome.failed.items()
    assert (name, failure.stage) == ("PyTorch, TF32", when)


def test_a_kernel_that_refuses_is_left_out_with_the_reason() -> None:
    torch = pytest.importorskip("torch")
    kernel = torch.nn.attention.SDPBackend.CUDNN_ATTENTION
    contender = Torch(CASE, CASE.draw()[:1], "cpu", "float32", kernel)
    with pytest.raises(LeftOutError, match=r"^refuses: "):
        contender.results()


def test_what_a_backend_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_backend("numpy")
    monkeypatch.setattr(backend.machine, "refusals", lambda: {"a way": "a reason"}, raising=False)
    outcome = duel(CASE, "numpy", "float32", "loops", 0.0)
    assert outcome.refused == {"a way": "a reason"}
    monkeypatch.setattr(run, "in_process", lambda function, *arguments, **options: outcome)
    report = Report({}, 0.0)
    part = Part("time", CASE, "numpy", "float32", "loops")
    assert [*measure(report, [part])] == [part]
    assert report.to_json()["refused"] == [{"part": part.title, "way": "a way", "reason": "a reason"}]


# -- processes


def raises() -> None:
    raise BrokenError("a cause")


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves() -> None:
    os._exit(7)


def cannot_be_sent() -> Any:
    return lambda: None


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raises, "BrokenError: a cause"),
        (is_killed, "its process ended without an answer: SIGKILL, perhaps out of memory"),
        (leaves, "its process ended without an answer: exit code 7"),
        (cannot_be_sent, "cannot_be_sent"),
    ],
)
def test_a_process_that_gives_no_answer(function: Callable[[], object], words: str) -> None:
    with pytest.raises(ProcessError) as caught:
        in_process(function, initializer=None)
    assert words in str(caught.value)
    failure = Failure.of("its process", caught.value)
    assert words in failure.reason
    assert "in raises" in failure.traceback or function is not raises


def test_a_process_that_hangs() -> None:
    start = time.monotonic()
    with pytest.raises(ProcessError, match=r"^no answer within 0.5 seconds: killed$"):
        in_process(time.sleep, 60, initializer=None, limit=0.5)
    assert time.monotonic() - start < 30


def test_an_answer_is_given_back() -> None:
    assert in_process(max, 3, 5, initializer=None, limit=60) == 5


def killed_at_short(case: Case, *arguments: object) -> Outcome:
    if case.name == "short":
        is_killed()
    return Outcome(left_out={"a peer": case.name})


def test_a_benchmark_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "duel", killed_at_short)
    parts = [Part("time", Case(name, 2, 3, 5, 7), "numpy", "float32", "a peer") for name in ("book", "short", "mid")]
    report = Report({}, 0.0)
    assert [*measure(report, parts)] == parts
    assert [entry["reason"] for entry in report.left_out] == ["book", "mid"]
    (failure,) = report.failed
    assert (failure["part"], failure["stage"]) == (parts[1].title, "its process")
    assert "SIGKILL" in failure["reason"]


def is_broken(name: str, cuda: bool) -> str:
    if name == "jax":
        is_killed()
    return "1.0"


def test_a_library_that_kills_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "describe_peer", is_broken)
    report, there = run.begin(["numpy"], ["torch", "jax", "numpy"], 0.0)
    assert there == ["torch", "numpy"]
    assert report.machine["torch"] == "1.0"
    assert [(entry["contender"], entry["stage"]) for entry in report.failed] == [("jax", "import")]
