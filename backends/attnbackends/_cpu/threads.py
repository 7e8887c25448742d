"""Worker threads over BLAS: independent pieces of work side by side, one BLAS thread each.

The pieces are made by the caller from shapes alone, so the number of workers never changes a result. While a call
is under way BLAS is limited to one thread; where it shares a product by itself, to as many as there are workers. Some
BLAS libraries keep that number for the whole process: there the limits of all callers are kept, so that none lifts
another's under its feet or leaves its own behind. Those over OpenMP keep one for each thread: there every caller and
every worker sets its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import cached_property
from itertools import product
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Limit = tuple[Callable[[], int], Callable[[int], object]]


class _Here(threading.local):
    """What a thread knows of itself."""

    working = False
    """Whether it is inside a piece of work."""


class _Share:
    """One call's pieces, for the threads that come to help: a future for each of them would cost 30 us a call."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._context = copy_context()
        self._lock = threading.Lock()
        self._helpers = 0
        self._closed = False
        self._all_left = threading.Lock()
        self.error: BaseException | None = None
        """The first that a helper met."""

    def help(self) -> None:
        """Work until nothing is left, unless the caller is done already."""
        with self._lock:
            if self._closed:
                return
            self._helpers += 1
            if self._helpers == 1:
                self._all_left.acquire()
        error = None
        try:
            self._context.copy().run(self._work)
        except BaseException as caught:
            error = caught
        with self._lock:
            self.error = self.error or error
            self._helpers -= 1
            if self._helpers == 0:
                self._all_left.release()

    def close(self) -> None:
        """Let no further helper begin, and wait for those that are at work."""
        with self._lock:
            self._closed = True
        with self._all_left:
            pass


class Workers:
    """A pool of worker threads, the calling thread among them.

    Parameters
    ----------
    count : int, optional
        How many threads work at a time. Default: as many as BLAS uses by itself, which follows the cores
        of the machine, ``OMP_NUM_THREADS`` and their like.
    """

    def __init__(self, count: int | None = None) -> None:
        self._asked = count
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        self.here = _Here()
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Share] = SimpleQueue()
        self._helpers = 0
        self._limits: list[int] = []  # of the callers that are at work
        self._before: list[int] = []  # of the libraries with one number for the process
        self._now: list[int] = []

    def _after_fork(self) -> None:
        """Threads do not survive a fork; a limit that one of them had set must not survive it either."""
        if self._limits:
            _set_threads(self._of_process, self._before)
        self._reset()

    @cached_property
    def _blas(self) -> Any:
        # A user's first product, not `import`, pays for finding the BLAS libraries.
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController().select(user_api="blas")

    @cached_property
    def _of_process(self) -> list[_Limit]:
        return [_limit(library) for library in self._blas.lib_controllers if not _is_per_thread(library)]

    @cached_property
    def _of_thread(self) -> list[_Limit]:
        return [_limit(library) for library in self._blas.lib_controllers if _is_per_thread(library)]

    @cached_property
    def count(self) -> int:
        """How many threads work at a time."""
        if self._asked is not None:
            return self._asked
        by_blas = [library["num_threads"] for library in self._blas.info()]
        return max(by_blas) if by_blas else os.cpu_count() or 1

    def blas(self) -> list[dict[str, Any]]:
        """The BLAS libraries that are loaded, as threadpoolctl describes them."""
        return list(self._blas.info())

    def map(self, function: Callable[[T], object], pieces: Iterable[T]) -> None:
        """Call `function` on each piece, in no order, and return when all are done.

        Parameters
        ----------
        function : callable
            Writes its results where the pieces say; what it returns is dropped.
        pieces : iterable
            Independent of each other. A call from within `function` runs in its own thread.

        Raises
        ------
        BaseException
            The first that `function` raised; pieces not begun by then are left out.
        """
        if self.here.working:
            for piece in pieces:
                function(piece)
            return
        queue = deque(pieces)
        many = self.count > 1 and len(queue) > 1
        self._limited(1, lambda: (self._share if many else self._work)(function, queue))

    def by_blas(self, function: Callable[[], object]) -> None:
        """Call `function`, whose products BLAS itself shares, among as many of its own threads as there are workers.

        Those turn round while they wait for more, about a tenth of a second, and begin at once. Within a piece of work,
        and while another thread's pieces are at work, it has one.
        """
        count = self.count
        if self.here.working or all(read() == count for read, _ in (*self._of_process, *self._of_thread)):
            function()
        else:
            self._limited(count, function)

    def _limited(self, limit: int, function: Callable[[], object]) -> None:
        """Call `function` while BLAS has so many threads."""
        self.count  # noqa: B018  read before the limit hides it
        of_thread = [read() for read, _ in self._of_thread]
        self._enter(limit)
        try:
            _set_threads(self._of_thread, [limit] * len(of_thread))
            function()
        finally:
            _set_threads(self._of_thread, of_thread)
            self._leave(limit)

    def _work(self, function: Callable[[T], object], queue: deque[T]) -> None:
        """Take pieces for as long as there are any, in the calling thread."""
        self.here.working = True
        try:
            while queue:
                try:
                    piece = queue.popleft()
                except IndexError:  # another worker was faster
                    break
                function(piece)
        except BaseException:
            queue.clear()
            raise
        finally:
            self.here.working = False

    def _share(self, function: Callable[[T], object], queue: deque[T]) -> None:
        share = _Share(lambda: self._work(function, queue))
        with suppress(RuntimeError):  # the interpreter is ending and starts no more threads: this one does it all
            self._start_helpers()
        for _ in range(min(self.count, len(queue)) - 1):
            self._calls.put(share)
        try:
            self._work(function, queue)
        finally:
            share.close()
        if share.error is not None:
            raise share.error

    def _start_helpers(self) -> None:
        if self._helpers == self.count - 1:
            return
        with self._lock:
            while self._helpers < self.count - 1:
                name = f"attnbackends_{self._helpers}"
                threading.Thread(target=self._help, args=(self._calls,), name=name, daemon=True).start()
                self._helpers += 1

    def _help(self, calls: SimpleQueue[_Share]) -> None:
        """What a thread of the pool does for as long as the process lives."""
        _set_threads(self._of_thread, [1] * len(self._of_thread))
        while True:
            calls.get().help()

    def _enter(self, limit: int) -> None:
        with self._lock:
            if not self._limits:
                self._before = self._now = [read() for read, _ in self._of_process]
            self._limits.append(limit)
            self._set_of_process()

    def _leave(self, limit: int) -> None:
        with self._lock:
            self._limits.remove(limit)
            self._set_of_process()

    def _set_of_process(self) -> None:
        """The lowest limit of all callers, or what was before them."""
        counts = [min(self._limits)] * len(self._before) if self._limits else self._before
        if counts != self._now:
            _set_threads(self._of_process, counts)
            self._now = counts


def _is_per_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp"


def _limit(library: Any) -> _Limit:
    """How to read and to set a library's number of threads.

    threadpoolctl lets one thread alone change OpenBLAS' number; here a count of callers keeps the order, and its own
    functions serve as well, in less time.
    """
    for prefix, suffix in product(("", "scipy_"), ("", "64_", "_64")):
        names = (f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set"))
        read, write = (getattr(library.dynlib, name, None) for name in names)
        if read is not None and write is not None and not _is_per_thread(library):
            return read, write
    return library.get_num_threads, library.set_num_threads


def _set_threads(limits: list[_Limit], counts: list[int]) -> None:
    for (_, write), count in zip(limits, counts, strict=True):
        write(count)
