"""What a type checker says of calls: what is no array is refused, and each layer's arguments are its own."""

import re
import subprocess
import sys
from inspect import isfunction
from pathlib import Path

import numpy as np
import pytest
from support import ROOT, Library

from attnbackends import Array

HEAD = """
from typing import Any
import numpy as np
import attnlayers.functional as F
from attnbackends import Array, xp
from attnlayers import (
    LSTM, Affine, Embedding, Initializer, KVCache, Layer, MultiHeadAttention, Softmax, TimeAttention, TimeLSTM,
    TransformerDecoder, TransformerEncoder, gradcheck,
)

x, mask, ids = np.ones((2, 5, 3), np.float32), np.ones((2, 5), bool), np.array([[1, 2]])
heads, encoder, decoder = MultiHeadAttention(x, x, x, x, heads=1), TransformerEncoder([]), TransformerDecoder([])
anything: Any = None
known: Layer = Softmax()
"""

RIGHT = """
heads.forward(x)
heads.forward(x, x, mask, causal=True, bias=x)
heads.backward(x, grads=("bias",))
heads.attend(x, heads.cache_context(x), mask)
encoder.step(x, encoder.new_cache(2, 5))
decoder.forward(x, x, mask)
TimeAttention().forward(xp.ones((2, 5, 3)), x)
Affine.create(3, 4, use_bias=False, dtype="float64", seed=1).forward(x)
Affine.create(3, 4, initializer=Initializer(1, scale="fan_in")).backward(x)
Embedding.create(3, 4).forward(ids)
h, c = LSTM.create(3, 4).forward(x[0], x[1], x[1])
TimeLSTM.create(3, 4, stateful=True).forward(x, mask)
KVCache(1, 2, 3, 4, like=x).reorder(ids[0])
out, saved = F.attention(x, x, x, mask=mask, causal=True, query_start=[1, 2], key_lengths=ids[0])
dq, dk, dv = F.attention_backward(saved, x)
F.softmax(1 / (x * 2) + x[0] @ x[1])
F.attention(anything, anything, mask=anything)
known.forward(x, anything)
gradcheck(Softmax(), x)
named: Array = x
"""

WRONG = """
heads.forward("nonsense")
heads.forward(x, causal="yes")
heads.forward(x, mask=True)
heads.backward([1.0])
heads.backward(x, bias=True)
heads.look(x, heads.new_cache(2, 5))
encoder.step(x, x)
decoder.forward(x)
TimeAttention().forward(x)
TimeAttention().forward(x, [[1.0]])
Affine.create("3", 4)
Affine.create(3, 4, sed=1)
Affine.create(3, 4, initializer=1)
Initializer(scale="xavier")
Embedding.create(3, 4).forward([1, 2])
LSTM.create(3, 4).forward(x, x)
TimeLSTM.create(3, 4).forward(x, x, x)
Softmax().forward(None)
F.attention(1, 2, 3)
F.attention(x, x, x, mask=True)
F.attention(x, x, x, also=("bias",))
F.attention_backward(saved, 1.0)
F.softmax("nonsense")
named = 3
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_mypy_refuses_what_is_no_array(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    file = tmp_path / "calls.py"
    head, right, wrong = lines(HEAD), lines(RIGHT), lines(WRONG)
    file.write_text("\n".join([*head, *right, *wrong, ""]))
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-error-summary", str(file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    found = re.findall(r"^.*calls\.py:(\d+): error: (.*)$", ended.stdout, re.MULTILINE)
    assert found, ended.stdout + ended.stderr
    text = file.read_text().splitlines()
    refused = {text[int(number) - 1]: message for number, message in found}
    assert {line: message for line, message in refused.items() if line not in wrong} == {}
    assert [line for line in wrong if line not in refused] == []
    assert 'incompatible type "str"; expected "Array"' in refused[wrong[0]]


def test_arrays_of_every_library_have_what_the_type_says(library: Library) -> None:
    array = library.array(np.ones((2, 3)))
    members = {name for name, member in vars(Array).items() if isinstance(member, property) or isfunction(member)}
    members -= {"__init__", "__subclasshook__"}  # those of every protocol
    assert {"shape", "dtype", "ndim", "__getitem__", "__setitem__", "__rsub__"} <= members
    assert [name for name in sorted(members) if not hasattr(array, name)] == []
