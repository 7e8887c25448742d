"""``python -m attnlayers.book``: what a script meets, and what its user sees."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

WARNING = "attnlayers.book: warning: not the book's files, and not used: common/np.py; --keep common.np uses"


def test_arguments_folder_and_name(checkout: Path, run: Run) -> None:
    (checkout / "ch06" / "say.py").write_text(
        "import sys, os\nsys.path.append('..')\nprint(sys.argv[1:], os.path.basename(os.getcwd()), __name__)\n"
        "import beside\nfrom dataset import there\n"
    )
    (checkout / "ch06" / "beside.py").write_text("print(__name__, __file__.endswith('beside.py'))\n")
    (checkout / "dataset" / "there.py").write_text("print(__name__)\n")
    for cwd, name in (
        (checkout, "ch06/say.py"),
        (checkout / "ch06", "say.py"),
        (Path("/"), str(checkout / "ch06/say.py")),
    ):
        ended = run(name, "-x", "--keep", cwd=cwd)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines() == ["['-x', '--keep'] ch06 __main__", "beside True", "dataset.there"]


def test_common_is_the_library_one_object_under_two_names(checkout: Path, run: Run) -> None:
    (checkout / "ch08" / "same.py").write_text(
        "import sys\nsys.path.append('..')\n"
        "import common.layers, attnlayers.book.layers as ours\nfrom ch08.attention_layer import TimeAttention\n"
        "from ch08.mine import mine\nfrom common.extra import extra\n"
        "import attnlayers.book.attention_layer as attention\n"
        "print(common.layers is ours, TimeAttention is attention.TimeAttention, ours.__name__, ours.__spec__.name)\n"
        "import common.np; print(common.np.np.__name__, common.np.GPU, mine, extra)\n"
    )
    (checkout / "ch08" / "mine.py").write_text("mine = 'mine'\n")
    (checkout / "common" / "extra.py").write_text("from common.np import *\nextra = np.sum(np.ones(3))\n")
    ended = run("ch08/same.py")
    assert ended.stdout.splitlines() == [
        "True True attnlayers.book.layers attnlayers.book.layers",
        "numpy False mine 3.0",
    ], ended.stderr


def test_what_is_broken_is_mended(checkout: Path, run: Run) -> None:
    (checkout / "ch07" / "seq2seq.py").write_text("class Encoder: pass\n")
    (checkout / "ch07" / "peeky.py").write_text("from seq2seq import Encoder\n")
    (checkout / "ch08" / "use.py").write_text(
        "import sys\nsys.path.append('..')\nimport numpy as np\n"
        "from ch07.peeky import Encoder\nfrom ch07 import seq2seq\n"
        "print(Encoder is seq2seq.Encoder, int(np.array([3])), int('7'), int(2.9), isinstance(3, int), np.dtype(int))\n"
        "try:\n    int(np.array([1, 2]))\nexcept TypeError as error:\n    print('refused')\n"
    )
    assert run("ch08/use.py").stdout.splitlines() == ["True 3 7 2 True int64", "refused"]


def test_an_error_points_at_the_line_of_the_script(checkout: Path, run: Run) -> None:
    (checkout / "ch06" / "bad.py").write_text("import sys\n\ndef f():\n    return 1 / 0\n\nf()\n")
    ended = run("ch06/bad.py")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[1:4] == [
        "Traceback (most recent call last):",
        f'  File "{checkout}/ch06/bad.py", line 6, in <module>',
        "    f()",
    ]
    assert "attnlayers" not in ended.stderr.partition("Traceback")[2]


def test_a_syntax_error_and_an_import_that_fails(checkout: Path, run: Run) -> None:
    (checkout / "ch06" / "typo.py").write_text("x = (\n")
    ended = run("ch06/typo.py")
    assert ended.returncode == 1
    assert "attnlayers/book" not in ended.stderr
    assert f'File "{checkout}/ch06/typo.py", line 1' in ended.stderr
    (checkout / "ch06" / "no.py").write_text("import nothing_of_that_name\n")
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in run("ch06/no.py").stderr


@pytest.mark.parametrize(("code", "status"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('no')", 1)])
def test_the_exit_status_is_the_scripts(checkout: Path, run: Run, code: str, status: int) -> None:
    (checkout / "ch06" / "leave.py").write_text(f"import sys\n{code}\n")
    assert run("ch06/leave.py").returncode == status


def test_the_checkout_stays_as_it_was(checkout: Path, run: Run) -> None:
    (checkout / "ch06" / "read.py").write_text("import sys\nsys.path.append('..')\nimport beside, common.util\n")
    (checkout / "ch06" / "beside.py").write_text("")
    before = sorted(checkout.rglob("*"))
    assert run("ch06/read.py").returncode == 0
    assert sorted(checkout.rglob("*")) == before


def test_own_changes_are_named_and_can_be_kept(checkout: Path, run: Run) -> None:
    (checkout / "common" / "util.py").write_text("mine = 'my own'\n")
    (checkout / "ch06" / "ask.py").write_text(
        "import sys\nsys.path.append('..')\nimport common.util\nprint(getattr(common.util, 'mine', 'served'))\n"
    )
    ended = run("ch06/ask.py")
    assert ended.stdout == "served\n"
    assert "not the book's files, and not used: common/np.py, common/util.py;" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    ended = run("--keep", "common.util", "ch06/ask.py")
    assert ended.stdout == "my own\n"
    assert ended.stderr.startswith(WARNING)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a script of the book's checkout; usage: "),
        (("ch06/none.py",), "ch06/none.py does not exist: name a script, such as ch08/train.py"),
        (("ch06",), "ch06 is no Python script: name one, such as ch08/train.py"),
        (("alone/x.py",), "alone/x.py is not in a checkout of the book's code: its folder must stand beside `common`"),
        (("--fast", "x"), "there is no option --fast; usage: "),
        (("--keep", "util", "ch06/x.py"), "--keep takes ch08.attention_layer, common.base_model, "),
    ],
)
def test_what_cannot_be_run_is_one_line(checkout: Path, run: Run, arguments: tuple[str, ...], message: str) -> None:
    (checkout / "ch06" / "x.py").write_text("")
    (checkout / "outside" / "alone").mkdir(parents=True)
    (checkout / "outside" / "alone" / "x.py").write_text("")
    ended = run(*arguments, cwd=checkout / "outside" if "alone/x.py" in arguments else checkout)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"attnlayers.book: error: {message}")
    assert len(ended.stderr.splitlines()) == 1


def test_a_backend_that_cannot_be_had_is_one_line(checkout: Path, run: Run) -> None:
    (checkout / "ch06" / "x.py").write_text("")
    ended = run("ch06/x.py", ATTN_GPU="perhaps")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "ATTN_GPU must be one of" in ended.stderr


def test_nothing_of_the_library_imports_the_drop_in() -> None:
    code = "import sys, attnlayers.layers, attnlayers.models, attnlayers.training.optimizers\n"
    code += "print([name for name in sys.modules if name.startswith('attnlayers.book')])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[]", ended.stderr
