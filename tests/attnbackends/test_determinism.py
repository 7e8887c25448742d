"""The same bits for any number of threads."""

from functools import cache

import pytest
from support import output_of

# Shapes that are cut in pieces, along each of the ways there are to cut.
SCRIPT = """
import hashlib
import numpy as np
from attnbackends import backend
from attnlayers import Dropout, TimeAffine, TimeAttention, TimeEmbedding, TimeLSTM, TimeSoftmaxWithLoss
from attnlayers import functional as F

rng = np.random.default_rng(0)
draw = lambda *shape: rng.standard_normal(shape).astype(np.float32) / 8
digest = hashlib.sha256()

def feed(*arrays):
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
        print(digest.hexdigest()[:16])

def run(layer, *inputs):
    out = layer.forward(*inputs)
    back = layer.backward(draw(*out.shape) if out.ndim else 1.0)
    feed(out, *([] if back is None else back if isinstance(back, tuple) else [back]), *layer.grads)

run(TimeAttention(), draw(64, 61, 64), draw(64, 31, 64), rng.random((64, 61)) < 0.7)
run(TimeAttention(), draw(3, 400, 32), draw(3, 500, 32))
q, k = draw(4, 6, 128, 48), draw(4, 1, 160, 48)
out, saved = F.attention(q, k, draw(6, 160, 40))
feed(out, *F.attention_backward(saved, draw(*out.shape)))
run(TimeLSTM(draw(16, 512), draw(128, 512), draw(512)), draw(300, 7, 16), rng.random((300, 7)) < 0.7)
run(TimeAffine(draw(96, 1100), draw(1100)), draw(64, 20, 96))
run(TimeAffine(draw(700, 33), draw(33)), draw(5, 20, 700))
run(TimeSoftmaxWithLoss(), draw(64, 20, 700), rng.integers(-1, 700, (64, 20)))
run(TimeEmbedding(draw(500, 64)), rng.integers(0, 500, (64, 30)))
run(Dropout(0.4, seed=3), draw(64, 20, 700))
out, saved = F.softmax(draw(64, 31, 700))
feed(out, F.softmax_backward(saved, draw(*out.shape)))
assert len(backend.chunks(64, 61 * 31 * 4)) > 1
"""


@cache
def digests(threads: str) -> list[str]:
    return output_of(SCRIPT, ATTN_THREADS=threads).splitlines()


@pytest.mark.parametrize("threads", ["2", "3", "8"])
def test_bits_do_not_depend_on_the_number_of_threads(threads: str) -> None:
    assert len(digests("1")) > 30
    assert digests(threads) == digests("1")


def test_bits_are_those_of_the_last_run() -> None:
    digests("1")
    assert output_of(SCRIPT, ATTN_THREADS="1").splitlines() == digests("1")


def test_bits_do_not_depend_on_the_threads_that_blas_has() -> None:
    assert output_of(SCRIPT, OPENBLAS_NUM_THREADS="1", ATTN_THREADS="2").splitlines() == digests("1")
