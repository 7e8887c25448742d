"""Devices of ranks, and sums from device to device: the real CuPy where a device answers, and NCCL by a stand-in.

The stand-in has the calls of ``cupy.cuda.nccl`` that are used, and adds up memory of threads in place of processes.
Where NCCL is installed, one rank alone meets it: that needs one device.
"""

import re
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
from conftest import library_of
from cuda_on_cpu.bench_process import needs_bench
from ranks import SharedMemory, ThreadChannel, results, run_ranks
from support import ROOT, Library

from attnbackends import BackendError
from attnbackends._cuda.nccl import NcclSums
from attnlayers.distributed import Ranks, RanksError


class FakeCommunicator:
    """A communicator of NCCL's: a group of threads that is named by an id. The host cannot read where pointers lead."""

    groups: dict[tuple[int, ...], SharedMemory] = {}  # noqa: RUF012
    lock = Lock()

    def __init__(self, size: int, group: tuple[int, ...], rank: int) -> None:
        with self.lock:
            self.shared = self.groups.setdefault(group, SharedMemory(size))
        assert self.shared.size == size
        self.rank = rank

    def allReduce(self, send: int, receive: int, count: int, kind: int, op: int, stream: int) -> None:
        assert (op, stream >= 0, count > 0) == (0, True, True)
        xp = library_of("cupy").xp
        dtype = {7: xp.float32, 8: xp.float64}[kind]

        def there(pointer: int) -> Any:
            memory = xp.cuda.UnownedMemory(pointer, count * xp.dtype(dtype).itemsize, self)
            return xp.ndarray((count,), dtype, xp.cuda.MemoryPointer(memory, 0))

        there(receive).set(sum(self.shared.gather(self.rank, there(send).get())))


class FakeNCCL:
    available = True
    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0
    NcclCommunicator = FakeCommunicator
    ids = 0

    @classmethod
    def get_unique_id(cls) -> tuple[int, ...]:
        cls.ids += 1
        return (cls.ids, *[0] * 127)

    @staticmethod
    def get_version() -> int:
        return 22707


@pytest.fixture
def cupy() -> Library:
    return library_of("cupy")


def on_devices(library: Library, count: int, work: Any, hosts: list[str]) -> list[Any]:
    """`work` on ranks of these hosts, which have so many devices."""
    runtime = library.xp.cuda.runtime
    if runtime.getDeviceCount() < count:
        pytest.skip(f"needs {count} devices")
    shared = SharedMemory(len(hosts))

    def on_rank(ranks: Ranks) -> Any:
        own = Ranks(ThreadChannel(shared, ranks.rank, hosts[ranks.rank]))
        own.use_devices(library.backend)
        return work(own)

    return run_ranks(len(hosts), on_rank)


def test_numbers_are_added_up_on_the_device_with_cupy(cupy: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", FakeNCCL)

    def work(ranks: Ranks) -> Any:
        assert ranks.sums == "NCCL 2.27.7"
        for dtype in ("float32", "float64"):
            grads = [cupy.array(np.full((2, 3), ranks.rank + 1.0), dtype), cupy.array([5.0], dtype)]
            (loss,) = ranks.average(grads, ranks.rank + 1, 3.0 * ranks.rank)
            assert cupy.numpy(grads[0]).tolist() == [[pytest.approx(5 / 3)] * 3] * 2
            assert cupy.numpy(grads[1]).tolist() == [pytest.approx(5)]
            assert float(loss) == pytest.approx(2)
        return ranks.rank

    # Two hosts with one device each: the stand-in for CUDA may have no more than one.
    assert results(on_devices(cupy, 1, work, ["one", "two"])) == [0, 1]


def test_without_nccl_sums_go_through_the_host_with_cupy(cupy: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one rank has none, none uses it; the words say why."""
    seen = Lock(), [0]

    class OnOne(FakeNCCL):
        @property
        def available(self) -> bool:  # type: ignore[override]
            with seen[0]:
                seen[1][0] += 1
                return seen[1][0] > 1

    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", OnOne())

    def work(ranks: Ranks) -> str:
        grads = [cupy.array([float(ranks.rank)])]
        ranks.average(grads, 1)
        assert cupy.numpy(grads[0]).tolist() == [0.5]
        return ranks.sums

    for words in results(on_devices(cupy, 1, work, ["one", "two"])):
        assert words.startswith("threads through the host, since on rank ")
        assert "NCCL is not installed: install nvidia-nccl-cu12 or nvidia-nccl-cu13" in words


def test_nccl_itself_with_cupy(cupy: Library) -> None:
    """Its calls, by one rank alone: a sum over one rank is what was there."""
    sums = cupy.backend.machine.device_sums()
    if isinstance(sums, str):
        pytest.skip(sums)
    sums.join(sums.new_id(), 1, 0)
    for dtype in ("float32", "float64"):
        array = cupy.array(np.arange(5.0), dtype)
        sums.add(array)
        assert cupy.numpy(array).tolist() == [0, 1, 2, 3, 4]


def test_ranks_that_nccl_refuses_are_told_so_with_cupy(cupy: Library) -> None:
    class NcclError(RuntimeError):
        pass

    class Refusing(FakeNCCL):
        @staticmethod
        def NcclCommunicator(size: int, group: Any, rank: int) -> None:  # type: ignore[override]
            raise NcclError("NCCL_ERROR_INVALID_USAGE: invalid usage")

    Refusing.NcclError = NcclError  # type: ignore[attr-defined]
    words = "NCCL 2.27.7 does not join 2 ranks (NCCL_ERROR_INVALID_USAGE: invalid usage): set NCCL_DEBUG=WARN"
    with pytest.raises(BackendError, match=re.escape(words)):
        NcclSums(cupy.xp, Refusing).join((1,), 2, 0)


def test_more_ranks_than_devices_with_cupy(cupy: Library) -> None:
    count = cupy.xp.cuda.runtime.getDeviceCount()
    hosts = ["here"] * (count + 1)
    for error in on_devices(cupy, 1, lambda ranks: None, hosts):
        assert isinstance(error, RanksError)
        assert str(error) == f"ranks 0 and {count} on here would share a device: start at most {count} there"


def test_each_rank_has_a_device_with_cupy(cupy: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", FakeNCCL)

    def work(ranks: Ranks) -> tuple[int, int]:
        return ranks.rank, cupy.array([1.0]).device.id

    assert results(on_devices(cupy, 2, work, ["here", "here"])) == [(0, 0), (1, 1)]


PROGRAM = """
import numpy as np
from attnlayers import distributed
from attnlayers.layers import Affine
with distributed.join() as ranks:
    xp = __import__("attnbackends").xp
    layer = Affine(xp.ones((3, 2), dtype=xp.float32), xp.zeros(2, dtype=xp.float32))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    mine = ranks.share(4)
    layer.forward(xp.asarray(x[mine]))
    layer.backward(xp.ones((mine.stop - mine.start, 2), dtype=xp.float32))
    ranks.average(layer.grads, mine.stop - mine.start)
    ranks.check_equal(layer.grads)
    found = ranks.gather((layer.grads[0].device.id, float(layer.grads[0][0, 0])))
    print(f"{found} {ranks.sums}\\n", end="")  # in one piece, beside another rank's
"""


@needs_bench
@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_of_mpiexec_on_the_bench_with_cupy(mpiexec: Any, tmp_path: Path, devices: int) -> None:
    """Two processes: each has a device, or is refused; without NCCL their sums go through the host."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    environ = {"ATTN_GPU": "1", "CUDA_ON_CPU_DEVICES": str(devices)}
    ended = mpiexec(ROOT / "tests" / "cuda_on_cpu" / "run.py", "program.py", **environ)
    if devices == 1:
        assert ended.returncode == 1
        assert re.fullmatch(r"ranks 0 and 1 on \S+ would share a device: start at most 1 there\n", ended.stderr)
        return
    assert ended.returncode == 0, ended.stderr
    mean = 2 * (0 + 3 + 6 + 9) / 4  # Of sums over two rows each.
    first, *rest = ended.stdout.splitlines()
    assert first.startswith(f"[(0, {mean}), (1, {mean})] MPICH ")
    assert "through the host, since on rank 0 NCCL is not installed" in first
    assert len(rest) == 1


def test_numpy_has_no_devices() -> None:
    backend = library_of("numpy").backend
    assert backend.machine.use_device(3) == ""
    assert backend.machine.device_sums() == "numpy has none"
    assert backend.machine.rounding().keys() == {"library", "BLAS"}
