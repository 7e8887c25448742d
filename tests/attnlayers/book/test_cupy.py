"""``ATTN_GPU=1``: what scripts in the book's manner do on CuPy, and what they ask the device for.

They run on the real CuPy and the device of ``tests/cuda_on_cpu``, which tells nothing of a device's times.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda_on_cpu.bench_process import needs_bench

pytestmark = needs_bench

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MODEL = """
import sys
sys.path.append('..')
from common.np import *
from common.time_layers import *
from common.base_model import BaseModel
from ch08.attention_layer import TimeAttention


def new(*shape):
    return (np.random.randn(*shape) / 10).astype('f')


class Answers(BaseModel):
    def __init__(self, V, D, H):
        self.embeds = [TimeEmbedding(new(V, D)) for _ in range(2)]
        self.lstms = [TimeLSTM(new(D, 4 * H), new(H, 4 * H), np.zeros(4 * H).astype('f'), s) for s in (False, True)]
        self.attention = TimeAttention()
        self.affine = TimeAffine(new(2 * H, V), np.zeros(V).astype('f'))
        self.loss = TimeSoftmaxWithLoss()
        self.params, self.grads = [], []
        for layer in (*self.embeds, *self.lstms, self.affine):
            self.params += layer.params
            self.grads += layer.grads

    def encode(self, xs):
        return self.lstms[0].forward(self.embeds[0].forward(xs))

    def decode(self, xs, hs):
        own = self.lstms[1].forward(self.embeds[1].forward(xs))
        return self.affine.forward(np.concatenate((self.attention.forward(hs, own), own), axis=2))

    def forward(self, xs, ts):
        hs = self.encode(xs)
        self.lstms[1].set_state(hs[:, -1])
        return self.loss.forward(self.decode(ts[:, :-1], hs), ts[:, 1:])

    def backward(self):
        both = self.affine.backward(self.loss.backward())
        H = both.shape[2] // 2
        dhs, down = self.attention.backward(both[:, :, :H])
        self.embeds[1].backward(self.lstms[1].backward(down + both[:, :, H:]))
        dhs[:, -1] += self.lstms[1].dh
        self.embeds[0].backward(self.lstms[0].backward(dhs))

    def generate(self, xs, start_id, count):
        hs = self.encode(xs)
        self.lstms[1].set_state(hs[:, -1])
        found, last = [], start_id
        for _ in range(count):
            score = self.decode(np.array([last]).reshape((1, 1)), hs)
            last = np.argmax(score.flatten())
            found.append(last)
        return found
"""

TRAIN = """
import sys
sys.path.append('..')
import json
from dataclasses import asdict
import numpy as np
from common.trainer import Trainer
from common.optimizer import Adam
from common.util import eval_seq2seq
from answers import Answers, GPU

np.random.seed(0)
num, V, S, T, H, B = json.loads(sys.argv[1])
x, t = np.random.randint(0, V, (num, S)), np.random.randint(0, V, (num, T))
x = x[:, ::-1]
model = Answers(V, 16, H)
trainer = Trainer(model, Adam())
steps, questions = [], []
if GPU:
    from cuda_on_cpu.counts import counts
    step = trainer._step

    def counted(*given):
        before = counts()
        step(*given)
        steps.append(asdict(counts() - before))

    trainer._step = counted
trainer.fit(x, t, max_epoch=2, batch_size=B, max_grad=5.0)
names = {i: chr(97 + i) for i in range(V)}
for i in range(3):
    before = counts() if GPU else None
    eval_seq2seq(model, x[[i]], t[[i]], names, verbose=False, is_reverse=True)
    if GPU:
        questions.append(asdict(counts() - before))
guess = [int(c) for c in model.generate(x[[0]], t[0, 0], T - 1)]
model.forward(x[[0]], t[[0]])
weights = np.array(model.attention.attention_weights)
model.save_params()
model.load_params()
print(json.dumps({'losses': trainer.loss_list, 'guess': guess, 'weights': float(weights.sum()), 'shape': weights.shape,
                  'steps': steps, 'questions': questions}))
"""


def last_line(ended: "subprocess.CompletedProcess[str]") -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture
def chapter_8(checkout: Path) -> str:
    (checkout / "ch08" / "answers.py").write_text(MODEL)
    (checkout / "ch08" / "train.py").write_text(TRAIN)
    return "ch08/train.py"


def test_same_numbers_as_on_the_cpu(run: Run, run_on_cuda: Run, chapter_8: str) -> None:
    sizes = json.dumps([32, 13, 7, 5, 11, 8])
    plain = last_line(run(chapter_8, sizes))
    device = last_line(run_on_cuda(chapter_8, sizes))
    assert device["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert device["guess"] == plain["guess"]
    assert device["shape"] == plain["shape"] == [4, 1, 7]
    assert device["weights"] == pytest.approx(plain["weights"], rel=1e-5)


def test_kernels_of_chapter_8_at_the_books_sizes(run_on_cuda: Run, chapter_8: str) -> None:
    """An iteration after the first sends, reads and waits for nothing; a question reads its answer alone."""
    seen = last_line(run_on_cuda(chapter_8, json.dumps([512, 59, 29, 11, 256, 128])))
    for did in seen["steps"][1:]:
        assert asked_for(did) <= 290  # 287: 178 kernels, 90 products, 19 copies and fills
        assert (did["to_device"], did["to_host"], did["synchronizations"]) == (0, 0, 0)
    for did in seen["questions"]:
        assert asked_for(did) <= 135  # 132: 91 kernels, 41 products
        assert did["to_device"] <= 2
        assert did["to_host"] <= 10  # the ten characters of the answer


def asked_for(did: dict[str, Any]) -> int:
    """Kernels of ours and of CuPy, calls of cuBLAS, and copies and fills within the device."""
    return int(sum(did["launches"].values()) + did["products"] + did["on_device"])


LAUNCHES = """
import json
from dataclasses import asdict
import numpy
from cuda_on_cpu.counts import counts
from common.np import *
from ch08.attention_layer import TimeAttention
new = lambda *shape: np.random.randn(*shape).astype('f')
layer, hs, both = TimeAttention(), new(128, 29, 256), new(128, 10, 512)
h, seen = both[:, :, 256:].copy(), [counts()]
out = layer.forward(hs, h)
seen.append(counts())
layer.backward(both[:, :, :256])
seen.append(counts())
weights = layer.attention_weights[3]
scores = numpy.einsum('nth,nh->nt', hs.get(), h.get()[:, 3])
exact = numpy.exp(scores - scores.max(axis=1, keepdims=True))
assert numpy.allclose(weights, exact / exact.sum(axis=1, keepdims=True), atol=1e-4)
print(json.dumps([asdict(after - before) for before, after in zip(seen, seen[1:])]))
"""


def test_time_attention_is_one_kernel_each_way(checkout: Path, run_on_cuda: Run) -> None:
    """At the book's sizes, with a gradient that is half of a larger array; the host neither sends nor waits."""
    (checkout / "ch08" / "launches.py").write_text("import sys\nsys.path.append('..')\n" + LAUNCHES)
    nothing = dict.fromkeys(("products", "to_device", "to_host", "on_device", "synchronizations"), 0)
    forward, backward = last_line(run_on_cuda("ch08/launches.py"))
    assert forward == {"launches": {"attention_small": 1}} | nothing
    assert backward == {"launches": {"attention_small_backward": 1}} | nothing


SCRIPTS = {
    "weights that a script makes with NumPy stay with it": """
import numpy as np
from common.layers import Affine, Sigmoid, SoftmaxWithLoss
from common.optimizer import SGD
from common.trainer import Trainer
class Net:
    def __init__(self):
        self.W = np.random.randn(2, 3)
        self.layers = [Affine(self.W, np.zeros(3)), Sigmoid()]
        self.last = SoftmaxWithLoss()
        self.params, self.grads = self.layers[0].params, self.layers[0].grads
    def forward(self, x, t):
        for layer in self.layers:
            x = layer.forward(x)
        return self.last.forward(x, t)
    def backward(self):
        d = self.last.backward()
        for layer in reversed(self.layers):
            d = layer.backward(d)
net = Net()
before = net.W.copy()
Trainer(net, SGD(1.0)).fit(np.random.randn(9, 2), np.eye(3, dtype=int)[np.arange(9) % 3], 1, 3)
assert type(net.W) is np.ndarray and not np.allclose(net.W, before)
assert type(net.layers[0].forward(np.ones((4, 2)))) is np.ndarray
print('done')
""",
    "counted words are keys and go to NumPy": """
import numpy as np
from common.util import convert_one_hot, create_co_matrix, create_contexts_target, most_similar, ppmi, preprocess
corpus, word_to_id, id_to_word = preprocess('You say goodbye and I say hello.')
C = create_co_matrix(corpus, len(word_to_id))
most_similar('you', word_to_id, id_to_word, C)
U, S, V = np.linalg.svd(ppmi(C))
contexts, target = create_contexts_target(corpus)
assert type(convert_one_hot(contexts, 7)) is type(U) is np.ndarray
print([id_to_word[i] for i in target][-1], 'done')
""",
    "probabilities go to numpy.random.choice": """
import numpy as np
from common.functions import softmax
from common.time_layers import TimeAffine
from common.np import np as xp, GPU
layer = TimeAffine(xp.random.randn(5, 900).astype('f'), xp.zeros(900, dtype='f'))
score = layer.forward(np.ones((1, 1, 5)))
assert GPU and type(score) is xp.ndarray
sampled = np.random.choice(900, size=1, p=softmax(score.flatten()))
print(int(sampled) < 900, 'done')
""",
    "config.GPU may be set by the script": """
from common import config
assert config.GPU
config.GPU = False
from common.np import *
import numpy
assert np is numpy and not GPU
print('done')
""",
    "np of common takes arrays of NumPy and what CuPy has dropped": """
import numpy
from common.np import *
a = np.zeros((3, 2))
np.scatter_add(a, numpy.array([0, 0]), numpy.ones((2, 2)))
np.add.at(a, numpy.array([2]), 1)
numpy.random.seed(1)
drawn = np.random.randn(2)
numpy.random.seed(1)
assert numpy.array_equal(np.asnumpy(drawn), numpy.random.randn(2))
assert type(np.dot(numpy.ones((2, 3)), a)) is type(drawn) is np.ndarray
print(np.asnumpy(a).tolist(), 'done')
""",
    "a language model reads its corpus on the device": """
import numpy
from common.np import *
from common.time_layers import *
from common.optimizer import SGD
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity, to_gpu, to_cpu
new = lambda *shape: (np.random.randn(*shape) / 10).astype('f')
class Words:
    def __init__(self):
        W = new(20, 6)
        self.layers = [TimeEmbedding(W), TimeDropout(0.5), TimeLSTM(new(6, 24), new(6, 24), np.zeros(24, 'f'), True),
                       TimeAffine(W.T, np.zeros(20, 'f'))]
        self.last = TimeSoftmaxWithLoss()
        self.params = sum([layer.params for layer in self.layers], [])
        self.grads = sum([layer.grads for layer in self.layers], [])
    def forward(self, xs, ts, train_flg=True):
        self.layers[1].train_flg = train_flg
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.last.forward(xs, ts)
    def backward(self):
        d = self.last.backward()
        for layer in reversed(self.layers):
            d = layer.backward(d)
corpus = numpy.arange(101) % 20
for words in (corpus, to_gpu(corpus)):
    trainer = RnnlmTrainer(Words(), SGD(2.0))
    trainer.fit(words[:-1], words[1:], 20, batch_size=2, time_size=5, max_grad=0.25, eval_interval=5)
    assert trainer.ppl_list[-1] < trainer.ppl_list[0]
    assert eval_perplexity(trainer.model, words, 2, 5) < 21
    assert type(to_cpu(trainer.model.params[0])) is numpy.ndarray
print('done')
""",
    "ids outside the vocabulary do not wrap": """
import numpy
from common.np import *
from common.time_layers import TimeEmbedding
from common.util import to_gpu
layer = TimeEmbedding(np.zeros((5, 2), 'f'))
moved = [to_gpu(numpy.array(ids)) for ids in ([[0, 7]], [[9, 0]])]
for ids in (numpy.array([[0, 5]]), numpy.array([[-1]]), moved[0], moved[1][:, 1:]):
    try:
        layer.forward(ids)
    except IndexError as error:
        print(error)
print('done')
""",
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_scripts(checkout: Path, run_on_cuda: Run, what: str) -> None:
    (checkout / "ch06" / "script.py").write_text("import sys\nsys.path.append('..')\n" + SCRIPTS[what])
    ended = run_on_cuda("ch06/script.py")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-1] == "done"
    if "wrap" in what:
        assert ended.stdout.count("`ids` must lie in 0 .. 4, the vocabulary, got") == 4
        assert ended.stdout.count(": give the weights a place for each word, or leave the word out\n") == 4
