"""What the environment says of the launcher, and that nothing is loaded where there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import output_of, run_python

from attnlayers import distributed
from attnlayers.distributed._launch import LAUNCHERS, Launch, launched

counts = st.integers(2, 10**6)


@given(names=st.sampled_from(LAUNCHERS), size=counts, data=st.data())
def test_each_launcher(names: tuple[str, str, str], size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, size - 1))
    local_rank = data.draw(st.integers(0, rank))
    environ = dict(zip(names, map(str, (size, rank, local_rank)), strict=True))
    assert launched(environ) == Launch(size, rank, local_rank)
    del environ[names[2]]
    assert launched(environ) == Launch(size, rank, rank)


@given(
    environ=st.dictionaries(st.sampled_from([names[0] for names in LAUNCHERS]), st.sampled_from(["", "1", "0", "x"]))
)
def test_one_process_is_no_launch(environ: dict[str, str]) -> None:
    assert launched(environ) is None
    assert launched(environ | {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None, "a batch script is one process"


def test_public_names() -> None:
    assert sorted(distributed.__all__) == ["Ranks", "RanksError", "join"]
    assert all(hasattr(distributed, name) for name in distributed.__all__)


def test_mpi_is_loaded_only_where_it_is_needed() -> None:
    code = """
import sys
import attnlayers, attnlayers.training
from attnlayers import distributed
assert "attnbackends" not in sys.modules, "the number of threads is chosen first"
with distributed.join() as ranks:
    print(ranks.rank, ranks.size, ranks.first, ranks.share(7), "mpi4py" in sys.modules)
"""
    assert output_of(code) == "0 1 True slice(0, 7, None) False"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_without_mpi4py_each_would_train_by_itself(rank: str) -> None:
    code = """
import sys
sys.modules["mpi4py"] = None
from attnlayers import distributed
with distributed.join():
    print("trains")
"""
    ended = run_python(code, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK=rank, OMPI_COMM_WORLD_LOCAL_RANK=rank)
    assert (ended.returncode, ended.stdout) == (1, "")
    if rank == "1":
        assert ended.stderr == "", "one process of a host tells"
    else:
        expected = "2 processes were started together, and each would train by itself, since mpi4py cannot be imported"
        assert ended.stderr.startswith(expected)
        assert ended.stderr.endswith(": pip install 'attnlayers[mpi]'\n")
        assert ended.stderr.count("\n") == 1


def test_mpiexec_of_another_mpi() -> None:
    """Each process is the only one that its MPI knows of."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    code = "from attnlayers import distributed\nwith distributed.join():\n    print('trains')"
    ended = run_python(code, OMPI_COMM_WORLD_SIZE="3", OMPI_COMM_WORLD_RANK="0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("3 processes were started together, and mpi4py's MPI, ")
    assert " knows of 1: start them with the mpiexec of that MPI, " in ended.stderr
    assert ended.stderr.count("\n") == 1
