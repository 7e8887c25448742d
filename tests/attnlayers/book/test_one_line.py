"""For those who edit: modules of a checkout whose body is one line, run by Python itself."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_on_cpu.bench_process import needs_bench

Run = Callable[..., "subprocess.CompletedProcess[str]"]

LAYER = """
from common.np import *
from common.config import GPU as set_here
class Double:
    def forward(self, x):
        return 2 * np.ones((2, 3)) * x
"""

SCRIPT = """
import sys
sys.path.append('..')
from common import config
config.GPU = {there}
from common.doubles import Double, np, set_here
print(np.__name__, set_here, float(Double().forward(2)[0, 0]))
"""


@needs_bench
@pytest.mark.parametrize(
    ("there", "environ", "shown"),
    [
        (False, {}, "numpy False 4.0"),
        (True, {}, "cupy True 4.0"),
        (False, {"ATTN_GPU": "1"}, "cupy False 4.0"),
    ],
)
def test_np_alone_is_cupy_where_a_switch_is_on(
    checkout: Path, python: Run, there: bool, environ: dict[str, str], shown: str
) -> None:
    """Either of two: `common.config`, or the variable."""
    (checkout / "common" / "np.py").write_text("from attnlayers.book.np import *\n")
    (checkout / "common" / "config.py").write_text("GPU = False\n")
    (checkout / "common" / "doubles.py").write_text(LAYER)
    script = checkout / "ch06" / "double.py"
    script.write_text(SCRIPT.format(there=there))
    ended = python(script.name, cwd=script.parent, bench=True, **environ)
    assert ended.stdout.splitlines() == [shown], ended.stderr


def test_modules_of_one_line_each(checkout: Path, python: Run) -> None:
    names = "np config functions layers time_layers optimizer trainer base_model util"
    for name in names.split():
        (checkout / "common" / f"{name}.py").write_text(f"from attnlayers.book.{name} import *\n")
    (checkout / "ch08" / "attention_layer.py").write_text("from attnlayers.book.attention_layer import *\n")
    script = checkout / "ch08" / "use.py"
    script.write_text(
        "import sys\nsys.path.append('..')\nimport numpy\n"
        "from common.np import *\nfrom common.time_layers import *\nfrom common.optimizer import Adam\n"
        "from common.base_model import BaseModel\nfrom ch08.attention_layer import TimeAttention\n"
        "affine = TimeAffine(np.ones((3, 2)), np.zeros(2))\n"
        "out = affine.forward(TimeAttention().forward(numpy.ones((1, 5, 3)), numpy.ones((1, 4, 3))))\n"
        "affine.backward(dout=out)\nAdam().update(affine.params, affine.grads)\n"
        "print(out.shape, affine.params[0].dtype)\n"
    )
    ended = python(script.name, cwd=script.parent)
    assert ended.stdout.splitlines() == ["(1, 4, 2) float64"], ended.stderr
