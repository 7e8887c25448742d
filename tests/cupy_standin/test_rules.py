"""The stand-in keeps CuPy's rules, and counts."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

CODE = """
import numpy as np
import cupy
from cupy import counts

def refused(call):
    try:
        call()
    except TypeError:
        return True
    return False

a = cupy.asarray(np.arange(6.0).reshape(2, 3))
assert counts.now() == (0, 1, 0)
assert refused(lambda: np.asarray(a))
assert refused(lambda: np.array([a, a]))
assert refused(lambda: a + np.ones(3))
assert refused(lambda: np.ones(3) + a)
assert refused(lambda: a.__imul__(np.ones(3)))
assert refused(lambda: cupy.dot(a, np.ones(3)))
assert refused(lambda: np.add(a, np.ones(3)))
assert refused(lambda: a.__setitem__(0, np.ones(3)))
assert refused(lambda: {cupy.argmax(a): 1})
assert not hasattr(cupy, "scatter_add")
start = counts.now()
b = a * 2
assert isinstance(b.T, cupy.ndarray) and b.T.base is b
assert isinstance(np.exp(b), cupy.ndarray)
total = b.sum()
assert total.shape == () and isinstance(total, cupy.ndarray)
assert counts.now()[0] - start[0] == 3
assert float(total) == 30 and counts.now()[2] == start[2] + 1
b[np.array([0, 1])]
assert counts.now()[1] == start[1] + 1
cupy.add.at(b, cupy.asarray([0, 0]), cupy.ones((2, 3)))
print(b.get().tolist())
"""


def test_rules() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=HERE,
        env={"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[2.0, 4.0, 6.0], [6.0, 8.0, 10.0]]"
