"""Ranks that mpiexec starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ranks import SECONDS
from support import ROOT, search_path

Ended = subprocess.CompletedProcess[str]


class MPIExec:
    """Ranks of one thread each, in a folder."""

    def __init__(self, cwd: Path, program: str) -> None:
        self.cwd, self.program = cwd, program

    def start(self, *command: object, options: tuple[object, ...] = ("-n", 2), **environ: str) -> Any:
        """Begin; `command` is what follows the interpreter."""
        own = ("ATTN_", "PMI_", "OMPI_", "COLUMNS", "LINES", "TTY_", "FORCE_COLOR")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        roots = (ROOT / "src", ROOT / "backends", ROOT / "tests" / "plugins")
        env = inherited | {"PYTHONPATH": search_path(*roots), "ATTN_THREADS": "1", "OMP_NUM_THREADS": "1"} | environ
        line = [self.program, *map(str, options), sys.executable, *map(str, command)]
        return subprocess.Popen(
            line, cwd=self.cwd, env=env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, process: Any) -> Ended:
        """Wait for the end; ranks that hang are killed, and the test fails."""
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"ranks hang; they said {out!r} and {err!r}")
        return Ended(process.args, process.returncode, out, err)

    def __call__(self, *command: object, options: tuple[object, ...] = ("-n", 2), **environ: str) -> Ended:
        return self.end(self.start(*command, options=options, **environ))


@pytest.fixture
def mpiexec(tmp_path: Path) -> MPIExec:
    """The mpiexec that the extra mpi brings."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'attnlayers[mpi]'")
    program = Path(sys.executable).with_name("mpiexec")
    if not program.exists():
        pytest.skip(f"there is no {program}: pip install 'attnlayers[mpi]'")
    return MPIExec(tmp_path, str(program))
