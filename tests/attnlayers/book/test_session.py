"""The drop-in in a running interpreter: cells of a notebook, and what its user is told.

`notes_cells.txt` are the cells of the notebook that this project grew out of, as they stand.
"""

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_on_cpu.bench_process import needs_bench

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CELLS = Path(__file__).with_name("notes_cells.txt")
needs_ipython = pytest.mark.skipif(
    importlib.util.find_spec("IPython") is None, reason="IPython is not installed: pip install -e '.[dev]'"
)

SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
def cell(source):
    result = shell.run_cell(source)
    result.raise_error()
    return result.result
def refused(source):
    result = shell.run_cell(source)
    assert result.error_in_exec is not None
"""
PLAIN = """
names = {"__name__": "__main__"}
def cell(source):
    exec(source, names)
"""
CHECK = """
import json
import numpy
import attnlayers
def values(x):
    return x.get() if hasattr(x, "get") else numpy.asarray(x)
cell('''
rng_ = __import__("numpy").random.default_rng(0)
hs_, dec_, dout_ = (np.asarray(rng_.standard_normal(s)) for s in ((2, 5, 3), (2, 4, 3), (2, 4, 3)))
layer_ = TimeAttention()
out_ = layer_.forward(hs_, dec_)
grads_ = layer_.backward(dout_)
''')
own = attnlayers.TimeAttention()
hs, dec, dout, out = (values(names[n]) for n in ("hs_", "dec_", "dout_", "out_"))
expected = own.forward(hs, dec), *own.backward(dout)
for found, right in zip((out, *map(values, names["grads_"])), expected, strict=True):
    numpy.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-12)
print(json.dumps([names["Softmax"].__module__, names["np"].__name__ if not names["GPU"] else "cupy", names["GPU"]]))
"""


def cells_in(kind: str, start: str) -> str:
    """A program: start the drop-in, run the cells, compare with the library."""
    names = "names = shell.user_ns\n" if kind == SHELL else ""
    run = f"for source in open({str(CELLS)!r}, encoding='utf-8').read().split('# In [None]:')[1:]:\n    cell(source)\n"
    return f"{kind}{names}{start}\n{run}{CHECK}"


KINDS = [
    pytest.param(SHELL, "cell('%load_ext attnlayers.book')", id="notebook", marks=needs_ipython),
    pytest.param(PLAIN, "import attnlayers.book; print(attnlayers.book.use())", id="plain"),
]


@pytest.mark.parametrize(("kind", "start"), KINDS)
@pytest.mark.parametrize("beside", [True, False])
def test_the_cells_run_as_they_stand(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, python: Run, kind: str, start: str, beside: bool
) -> None:
    cwd = checkout / "ch08" if beside else tmp_path_factory.mktemp("alone")
    ended = python("-c", cells_in(kind, start), cwd=cwd)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    first, *_, last = ended.stdout.splitlines()
    assert json.loads(last) == ["attnlayers.book.layers", "numpy", False]
    assert first.startswith("attnlayers.book: serves common.(base_model, config, functions, layers, np, optimizer, ")
    assert f"on numpy, {f'all else from {checkout}' if beside else 'without a checkout'}" in first


@needs_bench
@pytest.mark.parametrize(("kind", "start"), KINDS)
@pytest.mark.parametrize("beside", [True, False])
def test_the_cells_run_as_they_stand_with_cupy(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, python: Run, kind: str, start: str, beside: bool
) -> None:
    cwd = checkout / "ch08" if beside else tmp_path_factory.mktemp("alone")
    ended = python("-c", cells_in(kind, start), cwd=cwd, bench=True, ATTN_GPU="1")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert json.loads(ended.stdout.splitlines()[-1]) == ["attnlayers.book.layers", "cupy", True]


def test_chapters_of_a_checkout_that_is_named(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, python: Run
) -> None:
    (checkout / "ch07" / "seq2seq.py").write_text("from common.layers import Affine\nclass Encoder: pass\n")
    (checkout / "ch07" / "peeky.py").write_text("from seq2seq import Encoder\none = int(__import__('numpy').ones(1))\n")
    (checkout / "common" / "extra.py").write_text("extra = 1\n")
    code = f"""
import sys, attnlayers.book
before = list(sys.path)
session = attnlayers.book.use({str(checkout)!r})
from ch07.peeky import Encoder, one
from ch08.attention_layer import TimeAttention
from common.extra import extra
from ch07 import seq2seq
print(Encoder is seq2seq.Encoder, TimeAttention.__module__, extra, one, session.active)
session.stop()
print(sys.path == before, session.active, sorted(n for n in sys.modules if n[:2] == 'ch' and n[2:4].isdigit()))
"""
    ended = python("-c", code, cwd=tmp_path_factory.mktemp("alone"))
    assert ended.stdout.splitlines() == [
        "True attnlayers.book.attention_layer 1 1 True",
        "True False []",
    ], ended.stderr
    assert sorted(path.name for path in checkout.rglob("__pycache__")) == []


def test_after_it_is_switched_off_everything_is_as_before(checkout: Path, python: Run) -> None:
    (checkout / "common" / "np.py").write_text("np = 'the checkout'\n")
    (checkout / "common" / "layers.py").write_text("Softmax = 'the checkout'\n")
    (checkout / "ch08" / "attention_layer.py").write_text("TimeAttention = 'the checkout'\n")
    code = """
import sys, attnlayers.book
sys.path.append('..')
finders = list(sys.meta_path)
for _ in range(2):
    with attnlayers.book.use() as session:
        import common.layers
        from ch08 import attention_layer
        print(common.layers.Softmax.__module__, attention_layer.TimeAttention.__module__)
        print(session.warning)
print(sys.meta_path == finders, repr(session))
import common.layers
from common.np import np
from ch08 import attention_layer
print(common.layers.Softmax, np, attention_layer.TimeAttention)
attnlayers.book.stop()
"""
    ended = python("-c", code, cwd=checkout / "ch08")
    served = "attnlayers.book.layers attnlayers.book.attention_layer"
    warning = (
        "not the book's files, and not used: ch08/attention_layer.py, common/layers.py, common/np.py; "
        "`keep` ch08.attention_layer uses the checkout's own"
    )
    assert ended.stdout.splitlines() == [
        *[served, warning] * 2,
        "True attnlayers.book: switched off",
        "the checkout the checkout the checkout",
    ], ended.stderr


def test_a_module_can_stay_the_checkouts_own(checkout: Path, python: Run) -> None:
    (checkout / "common" / "util.py").write_text("mine = 'my own'\n")
    code = """
import attnlayers.book
session = attnlayers.book.use(keep=['common.util'])
import common.util, common.layers
print(common.util.mine, common.layers.Softmax.__module__, 'util' in repr(session))
"""
    ended = python("-c", code, cwd=checkout)
    assert ended.stdout == "my own attnlayers.book.layers False\n", ended.stderr


def test_a_second_use_takes_the_place_of_the_first(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, python: Run
) -> None:
    code = f"""
import sys, attnlayers.book
first = attnlayers.book.use()
import common.layers
finders = len(sys.meta_path)
second = attnlayers.book.use({str(checkout)!r})
print(first.active, second.active, len(sys.meta_path) == finders, first.checkout, second.checkout == {checkout!r})
first.stop()
import common.layers
print(second.active, common.layers.__name__)
""".replace("PosixPath", "__import__('pathlib').Path")
    ended = python("-c", code, cwd=tmp_path_factory.mktemp("alone"))
    assert ended.stdout.splitlines() == ["False True True None True", "True attnlayers.book.layers"], ended.stderr


@pytest.mark.parametrize(
    ("before", "call", "message"),
    [
        ("", "use('/nowhere')", "ValueError: `checkout` must be a folder with the book's common/np.py, got /nowhere"),
        (
            "",
            "use(keep=['common.np'])",
            "ValueError: `keep` leaves modules as a checkout has them, got common.np and no",
        ),
        ("import common.mine", "use()", "RuntimeError: common was imported before, from "),
        ("", "use('CHECKOUT', keep=['util'])", "RuntimeError: `keep` takes ch08.attention_layer, "),
    ],
)
def test_what_cannot_be_used_is_one_line(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, python: Run, before: str, call: str, message: str
) -> None:
    alone = tmp_path_factory.mktemp("alone")
    (alone / "common").mkdir()
    (alone / "common" / "mine.py").write_text("")
    code = f"import sys\n{before}\nimport attnlayers.book\nfinders = list(sys.meta_path)\ntry:\n"
    code += f"    attnlayers.book.{call.replace('CHECKOUT', str(checkout))}\nexcept Exception as error:\n"
    code += "    print(f'{type(error).__name__}: {error}')\nprint(finders == sys.meta_path)"
    line, same = python("-c", code, cwd=alone).stdout.splitlines()
    assert line.startswith(message)
    assert same == "True"


def test_a_backend_that_cannot_be_had_is_one_line(tmp_path: Path, python: Run) -> None:
    code = "import attnlayers.book\ntry:\n    attnlayers.book.use()\nexcept RuntimeError as error:\n    print(error)"
    ended = python("-c", code, cwd=tmp_path, ATTN_GPU="perhaps")
    assert ended.stdout.startswith("ATTN_GPU must be one of"), ended.stderr
    assert len(ended.stdout.splitlines()) == 1


@needs_ipython
def test_the_extension_says_what_it_does_in_one_line(tmp_path: Path, python: Run) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "mine.py").write_text("")
    code = f"""{SHELL}
import sys
cell('%load_ext attnlayers.book')
cell('%load_ext attnlayers.book')
cell('from common.layers import Softmax; import numpy; n = int(numpy.ones(1)); print(n, Softmax.__module__)')
cell('%unload_ext attnlayers.book')
refused('int(numpy.ones(1)) + no_such_name')
print(sorted(n for n in sys.modules if n.startswith('common')), len(shell.ast_transformers))
sys.path.insert(0, '.')
cell('import common.mine')
refused('%load_ext attnlayers.book')
"""
    ended = python("-c", code, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line]
    assert lines[0].endswith("without a checkout; %unload_ext attnlayers.book switches it off")
    assert lines[1].startswith("The attnlayers.book extension is already loaded.")
    assert "1 attnlayers.book.layers" in lines
    assert "[] 0" in lines
    assert "UsageError: attnlayers.book: common was imported before" in ended.stderr + ended.stdout
    assert "_session.py" not in ended.stderr + ended.stdout


def test_a_checkout_of_the_book(python: Run, tmp_path: Path) -> None:
    folder = os.environ.get("BOOK")
    if not folder or not (Path(folder) / "ch08" / "attention_seq2seq.py").is_file():
        pytest.skip("no checkout of the book: set BOOK to one")
    code = f"""
import attnlayers.book
attnlayers.book.use({folder!r})
from attention_seq2seq import AttentionSeq2seq, AttentionEncoder
from common.np import np
model = AttentionSeq2seq(13, 4, 5)
ids = np.arange(12).reshape(2, 6)
loss = model.forward(ids, ids)
model.backward()
print(type(model.decoder.attention).__module__, float(loss) > 0)
"""
    ended = python("-c", code, cwd=tmp_path)
    assert ended.stdout == "attnlayers.book.attention_layer True\n", ended.stderr
