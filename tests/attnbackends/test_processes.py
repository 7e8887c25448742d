"""Worker threads where a process forks, and where it ends."""

import os

import pytest
from support import output_of

FORK = """
import os, signal, sys, threading, warnings
import numpy as np
from threadpoolctl import threadpool_info
from attnbackends import backend

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 has its doubts about threads and fork
limits = lambda: [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
before = limits()
a = np.random.default_rng(0).standard_normal((16, 200, 200))
expected = backend.matmul(a, a)  # the pool has its threads now
PARENT
child = os.fork()
if child == 0:
    signal.alarm(20)
    meeting, seen = threading.Barrier(backend.workers.count, timeout=15), []
    backend.map(lambda _: (meeting.wait(), seen.append(limits())), range(backend.workers.count))
    side_by_side = seen == [[1] * len(before)] * backend.workers.count
    right = np.array_equal(backend.matmul(a, a), expected) and limits() == before and not backend.workers.here.working
    os._exit(0 if right and side_by_side else 7)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
AFTER
assert limits() == before, (limits(), before)
print(code, np.array_equal(backend.matmul(a, a), expected))
"""
INSIDE = """
inside, leave = threading.Event(), threading.Event()
def piece(_):
    inside.set()
    leave.wait(30)
thread = threading.Thread(target=backend.map, args=(piece, range(8)), daemon=True)
thread.start()
assert inside.wait(30)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("threads", ["2", "4"])
@pytest.mark.parametrize(
    ("parent", "after"), [("", ""), (INSIDE, "leave.set(); thread.join()")], ids=["used before", "in use"]
)
def test_a_forked_child_computes(threads: str, parent: str, after: str) -> None:
    code = FORK.replace("PARENT", parent).replace("AFTER", after)
    assert output_of(code, ATTN_THREADS=threads) == "0 True"


def test_a_process_ends_while_its_workers_wait() -> None:
    code = "from attnbackends import backend; backend.map(lambda _: None, range(9)); print('done')"
    assert output_of(code, ATTN_THREADS="4") == "done"


def test_work_at_the_very_end_of_a_process() -> None:
    code = (
        "import atexit, numpy as np\nfrom attnbackends import backend\na = np.ones((16, 200, 200))\n"
        "backend.matmul(a, a)\natexit.register(lambda: print(float(backend.matmul(a, a).max())))"
    )
    assert output_of(code, ATTN_THREADS="4") == "200.0"
