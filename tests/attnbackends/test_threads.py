"""Worker threads: what they share, what they raise, and what they leave behind."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from attnbackends._cpu.backend import NumpyBackend
from attnbackends._cpu.threads import Workers

LONG = 30
"""Seconds that nothing here takes: a deadlock ends as a failure."""


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers of this test alone; BLAS must have its own number of threads again in the end."""
    before = blas_threads()
    assert before
    yield Workers(3)
    assert blas_threads() == before


class Odd(Exception):
    """An error that only these tests raise."""


def test_every_piece_is_done_once(workers: Workers) -> None:
    done = np.zeros(1000)

    def work(i: int) -> None:
        done[i] += 1

    workers.map(work, range(1000))
    workers.map(work, iter(()))
    assert (done == 1).all()


def test_as_many_threads_as_asked_for_work_side_by_side(workers: Workers) -> None:
    meeting = threading.Barrier(3, timeout=LONG)
    names = set()

    def work(_: int) -> None:
        meeting.wait()
        names.add(threading.current_thread().name)

    workers.map(work, range(3))
    assert len(names) == 3
    assert threading.current_thread().name in names


def test_blas_has_one_thread_meanwhile(workers: Workers) -> None:
    seen: list[list[int]] = []
    workers.map(lambda _: seen.append(blas_threads()), range(6))
    assert seen == [[1] * len(blas_threads())] * 6


def test_blas_has_as_many_threads_where_it_shares_by_itself(workers: Workers) -> None:
    before = blas_threads()
    seen: list[list[int]] = []

    def look(_: int = 0) -> None:
        seen.append(blas_threads())

    workers.by_blas(look)
    assert seen == [[3] * len(before)]
    workers.map(lambda _: workers.by_blas(look), range(2))  # within pieces each has one
    assert seen[1:] == [[1] * len(before)] * 2
    with pytest.raises(Odd):
        workers.by_blas(_raise)
    assert blas_threads() == before


def test_blas_has_one_thread_while_pieces_of_another_caller_are_at_work(workers: Workers) -> None:
    inside, end = threading.Event(), threading.Event()
    thread = in_thread(lambda: workers.map(lambda _: inside.set() or end.wait(LONG), range(1)))
    assert inside.wait(LONG)
    seen: list[list[int]] = []
    workers.by_blas(lambda: seen.append(blas_threads()))
    end.set()
    thread.join(LONG)
    workers.by_blas(lambda: seen.append(blas_threads()))
    assert seen == [[1] * len(seen[0]), [3] * len(seen[0])]


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_blas_has_one_thread_whichever_thread_calls(workers: Workers) -> None:
    seen: list[list[int]] = []
    workers.map(lambda _: None, range(3))  # from this thread, which lives on
    in_thread(lambda: workers.map(lambda _: seen.append(blas_threads()), range(6))).join(LONG)
    assert seen == [[1] * len(blas_threads())] * 6


def test_the_last_caller_to_leave_lifts_the_limit(workers: Workers) -> None:
    before = blas_threads()
    inside, leave, left, end = (threading.Event() for _ in range(4))

    def first() -> None:
        workers.map(lambda _: inside.set() or leave.wait(LONG), range(1))
        left.set()
        end.wait(LONG)  # this thread is done with its work, and lives on

    thread = in_thread(first)
    assert inside.wait(LONG)
    seen: list[list[int]] = []

    def second(_: int) -> None:
        leave.set()
        assert left.wait(LONG)
        seen.append(blas_threads())

    workers.map(second, range(1))
    after = blas_threads()
    end.set()
    thread.join(LONG)
    assert seen == [[1] * len(before)]
    assert after == before


def test_the_count_is_that_of_blas_by_default() -> None:
    assert Workers().count == max(blas_threads())
    assert Workers(5).count == 5
    assert [library["num_threads"] for library in Workers().blas()] == blas_threads()


@pytest.mark.parametrize("error", [Odd, KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["caller", "worker", "both"])
def test_an_error_in_a_piece_is_raised_once(workers: Workers, error: type[BaseException], where: str) -> None:
    caller = threading.current_thread()
    meeting = threading.Barrier(3, timeout=LONG)
    done: list[int] = []

    def work(i: int) -> None:
        if i < 3:
            meeting.wait()  # each of three threads has one piece
            if where == "both" or (threading.current_thread() is caller) == (where == "caller"):
                raise error("of a piece")
        time.sleep(0.01)
        done.append(i)

    with pytest.raises(error, match="of a piece") as caught:
        workers.map(work, range(200))
    assert type(caught.value) is error
    assert len(done) < 100  # what had not begun was left out
    assert not workers.here.working
    after = np.zeros(500)
    workers.map(lambda i: np.add.at(after, i, 1), range(500))
    assert (after == 1).all()


def test_an_error_while_pieces_are_made_leaves_no_limit(workers: Workers) -> None:
    with pytest.raises(Odd):
        workers.map(print, (_ for _ in iter(_raise, None)))


def _raise() -> Any:
    raise Odd


def test_a_call_from_within_a_piece_stays_in_its_thread(workers: Workers) -> None:
    threads: list[tuple[int, int]] = []

    def outer(i: int) -> None:
        assert workers.here.working
        workers.map(lambda _: threads.append((i, threading.get_ident())), range(4))
        assert workers.here.working

    workers.map(outer, range(8))
    assert len(threads) == 32
    assert len(set(threads)) == 8
    assert not workers.here.working


def test_an_error_from_a_nested_call(workers: Workers) -> None:
    with pytest.raises(Odd):
        workers.map(lambda _: workers.map(lambda _: _raise(), range(3)), range(3))


def test_concurrent_callers(workers: Workers) -> None:
    start = threading.Barrier(6, timeout=LONG)
    sums = np.zeros((6, 40))
    limits: list[list[int]] = []
    errors: list[BaseException] = []

    def caller(row: int) -> None:
        try:
            start.wait()
            for _ in range(5):
                workers.map(lambda i: np.add.at(sums, (row, i), i), range(40))
            workers.map(lambda _: limits.append(blas_threads()), range(3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caller, args=(row,)) for row in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert errors == []
    assert np.array_equal(sums, np.tile(5.0 * np.arange(40), (6, 1)))
    assert set(map(tuple, limits)) == {(1,) * len(blas_threads())}


def test_concurrent_products_are_right() -> None:
    backend = NumpyBackend()
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8, 200, 200))
    expected = backend.matmul(a, b)
    results: list[np.ndarray] = []
    before = blas_threads()
    threads = [threading.Thread(target=lambda: results.append(backend.matmul(a, b))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)
    assert blas_threads() == before


def test_workers_inherit_the_callers_errstate(workers: Workers) -> None:
    meeting = threading.Barrier(3, timeout=LONG)
    states: list[dict[str, Any]] = []

    def work(_: int) -> None:
        meeting.wait()
        states.append(np.geterr())

    with np.errstate(divide="raise", over="ignore"):
        workers.map(work, range(3))
        assert states == [np.geterr()] * 3
        with pytest.raises(FloatingPointError):
            workers.map(lambda _: np.ones(1) / np.zeros(1), range(3))
