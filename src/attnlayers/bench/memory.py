"""What forward and backward together add to the peak of memory, inputs and outputs left out."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from attnbackends import Backend, get_backend

from .cases import Case
from .contenders import LeftOutError, Ours
from .duel import OURS
from .outcome import Outcome
from .peers import PEERS, Found
from .processes import Failure


def added_memory(case: Case, backend_name: str, peer: str) -> dict[str, float | str | Failure]:
    """Megabytes (10**6 bytes) by contender, the reason why there is no number, or the exception in its place.

    Call it in a fresh process: what an earlier call left to an allocator would not be counted.
    """
    backend = get_backend(backend_name)
    small = replace(case, T_q=64, T_k=64)  # loads libraries, starts threads

    def ways(case: Case) -> Found:
        sets = case.draw()[:1]
        if peer == OURS:
            return {OURS: partial(Ours, case, sets, backend)}
        return PEERS[peer](case, sets, backend, "float32")

    outcome = Outcome()
    added: dict[str, float] = {}
    for some in (small, case):
        found: Found = {}
        with outcome.watching(peer, "making"):
            found = ways(some)
        for name, make in found.items():
            if isinstance(make, str):
                if some is case:
                    outcome.left_out[name] = make
            elif name not in outcome.failed:
                with outcome.watching(name, "first call" if some is small else "measuring"):
                    both = make().both
                    if some is small:
                        both(0)
                    else:
                        added[name] = _measure(both, backend, peer, case)
    return {**outcome.left_out, **outcome.failed, **added}


def added_arrays(case: Case, backend_name: str) -> float:
    """Megabytes of arrays that ours holds at most at once in the host's memory, inputs and outputs left out.

    What `added_memory` finds beyond them belongs to BLAS, to threads, or to the allocator. In a process of its own.
    """
    ours = Ours(case, case.draw()[:1], get_backend(backend_name))
    tracemalloc.start()
    results = ours.both(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del results
    return max(0.0, (peak - _outputs(case)) / 1e6)


def _outputs(case: Case) -> int:
    """Bytes of out and of the gradients."""
    return 4 * case.batch * case.D * (2 * case.T_q + (1 if case.shared else 2) * case.T_k)


def _measure(call: Callable[[int], Any], backend: Backend, peer: str, case: Case) -> float:
    if backend.on_host:
        added = _of_process(call)
    elif peer == "torch":
        added = _of_torch(call)
    elif peer == "jax":
        raise LeftOutError("JAX keeps no peak that could be set back")
    else:
        added = _of_pool(call, backend)
    return max(0.0, (added - _outputs(case)) / 1e6)


def _of_process(call: Callable[[int], Any]) -> int:
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if status.exists() and reset.exists():
        reset.write_text("5", encoding="ascii")  # sets the peak back to what is resident now
        before = _kilobytes(status, "VmRSS")
        results = call(0)
        peak = _kilobytes(status, "VmHWM")
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1024
        results = call(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1024
    del results
    return 1024 * (peak - before)


def _kilobytes(status: Path, key: str) -> int:
    lines = status.read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def _of_torch(call: Callable[[int], Any]) -> int:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = call(0)
    peak = torch.cuda.max_memory_allocated()
    del results
    return int(peak - before)


def _of_pool(call: Callable[[int], Any], backend: Backend) -> int:
    """What the pool asked of the device: it gives nothing back by itself, so that is the peak."""
    pool = backend.xp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    results = call(0)
    peak = pool.total_bytes()
    del results
    return int(peak - before)
