"""The names of the book, what they compute, and what they refuse."""
# ruff: noqa: NPY002  the book's scripts seed NumPy's global generator

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from attnlayers import gradcheck
from attnlayers.book import attention_layer, functions, layers, optimizer, time_layers, trainer, util
from attnlayers.book.config import GPU
from attnlayers.book.np import np as book_np

NAMES = {
    "np": "np GPU",
    "config": "GPU",
    "functions": "np GPU sigmoid relu softmax cross_entropy_error",
    "layers": "np GPU softmax cross_entropy_error MatMul Affine Softmax SoftmaxWithLoss Sigmoid SigmoidWithLoss "
    "Dropout Embedding",
    "time_layers": "np GPU softmax sigmoid MatMul Affine Embedding RNN LSTM GRU TimeRNN TimeLSTM TimeGRU "
    "TimeEmbedding TimeAffine TimeSoftmaxWithLoss TimeDropout TimeBiLSTM TimeSigmoidWithLoss "
    "Simple_TimeSoftmaxWithLoss Simple_TimeAffine",
    "optimizer": "np GPU sys SGD Momentum Nesterov AdaGrad RMSprop Adam",
    "trainer": "np GPU numpy plt sys time Trainer RnnlmTrainer remove_duplicate clip_grads",
    "base_model": "np GPU os pickle sys BaseModel to_cpu to_gpu",
    "util": "np GPU os sys preprocess cos_similarity most_similar convert_one_hot create_co_matrix ppmi "
    "create_contexts_target to_cpu to_gpu clip_grads eval_perplexity eval_seq2seq analogy normalize",
    "attention_layer": "np GPU sys Softmax WeightSum AttentionWeight Attention TimeAttention",
}


@pytest.mark.parametrize("module", NAMES)
def test_star_imports_give_the_books_names(module: str) -> None:
    found: dict[str, Any] = {}
    exec(f"from attnlayers.book.{module} import *", found)
    assert set(NAMES[module].split()) <= set(found)
    own = import_module(f"attnlayers.book.{module}")
    assert all(hasattr(own, name) for name in getattr(own, "__all__", ()))


def test_on_the_cpu_np_is_numpy() -> None:
    assert book_np is np
    assert GPU is False


def draw(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


LAYERS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "MatMul": (layers.MatMul(draw(3, 5)), (draw(2, 3),)),
    "MatMul of three axes": (layers.MatMul(draw(3, 5)), (draw(2, 7, 3),)),
    "Affine": (layers.Affine(draw(3, 5), draw(5)), (draw(2, 3),)),
    "Softmax": (layers.Softmax(), (draw(2, 3),)),
    "Softmax of three axes": (layers.Softmax(), (draw(2, 5, 3),)),
    "Sigmoid": (layers.Sigmoid(), (draw(2, 3),)),
    "SoftmaxWithLoss": (layers.SoftmaxWithLoss(), (draw(2, 3), np.array([0, 2]))),
    "SoftmaxWithLoss, one-hot": (layers.SoftmaxWithLoss(), (draw(2, 3), np.eye(3, dtype=int)[[0, 2]])),
    "SigmoidWithLoss": (layers.SigmoidWithLoss(), (draw(3), np.array([0, 1, 1]))),
    "TimeSigmoidWithLoss": (time_layers.TimeSigmoidWithLoss(), (draw(2, 3), np.array([[0, 1, 1], [1, 0, 1]]))),
    "TimeSoftmaxWithLoss": (time_layers.TimeSoftmaxWithLoss(), (draw(2, 3, 5), np.array([[0, 4, -1], [1, 1, 2]]))),
    "Simple_TimeSoftmaxWithLoss": (time_layers.Simple_TimeSoftmaxWithLoss(), (draw(2, 3, 5), np.ones((2, 3), int))),
    "Simple_TimeAffine": (time_layers.Simple_TimeAffine(draw(3, 5), draw(5)), (draw(2, 7, 3),)),
    "TimeAttention": (attention_layer.TimeAttention(), (draw(2, 5, 3), draw(2, 4, 3))),
    "TimeBiLSTM": (
        time_layers.TimeBiLSTM(draw(3, 20), draw(5, 20), draw(20), -draw(3, 20), -draw(5, 20), -draw(20)),
        (draw(2, 7, 3),),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    layer, inputs = LAYERS[name]
    rtol = 1e-5 if "Sigmoid" in name else 1e-6  # the book's 1e-7 in the logarithm is in its loss, not its gradient
    gradcheck(layer, *inputs, rtol=rtol)


def test_what_simple_time_affine_shows() -> None:
    W, b = draw(3, 5), draw(5)
    layer = time_layers.Simple_TimeAffine(W, b)
    x, dout = draw(2, 7, 3), draw(2, 7, 5)
    layer.forward(xs=x)
    layer.backward(dout=dout)
    assert layer.W is W
    assert layer.b is b
    np.testing.assert_allclose(layer.dW, np.einsum("ntd,nth->dh", x, dout))
    np.testing.assert_allclose(layer.db, dout.sum(axis=(0, 1)))


def test_losses_by_hand() -> None:
    y = 1 / (1 + np.exp(-np.array([0.5, -1.0])))
    loss = layers.SigmoidWithLoss().forward(np.array([0.5, -1.0]), np.array([1, 0]))
    assert loss == pytest.approx(-(np.log(y[0] + 1e-7) + np.log(1 - y[1] + 1e-7)) / 2)
    y = np.array([[0.25, 0.75], [0.5, 0.5]])
    expected = -(np.log(0.75 + 1e-7) + np.log(0.5 + 1e-7)) / 2
    assert functions.cross_entropy_error(y, np.array([1, 0])) == pytest.approx(expected)
    assert functions.cross_entropy_error(y, np.array([[0, 1], [1, 0]])) == pytest.approx(expected)
    assert functions.cross_entropy_error(y[0], np.array([0, 1])) == pytest.approx(-np.log(0.75 + 1e-7))
    np.testing.assert_allclose(functions.softmax(draw(2, 3, 5)).sum(axis=-1), 1)
    np.testing.assert_array_equal(functions.relu(np.array([-1.0, 2.0])), [0, 2])
    np.testing.assert_allclose(functions.sigmoid(np.array([-800.0, 0.0, 800.0])), [0, 0.5, 1])


def test_weights_decide_the_dtype() -> None:
    """Where the book stumbles into float64: one-hot integers, labels as integers, numbers of NumPy's default."""
    W = draw(3, 5, dtype="float32")
    one_hot = np.eye(3, dtype=np.int32)
    layer = layers.MatMul(W)
    assert layer.forward(one_hot).dtype == layer.backward(draw(3, 5)).dtype == np.float32
    assert layers.Affine(W, W[0]).forward(draw(2, 3)).dtype == np.float32
    loss = layers.SigmoidWithLoss()
    loss.forward(draw(3, dtype="float32"), np.array([0, 1, 1]))
    assert loss.backward().dtype == np.float32


def test_dropout_draws_what_the_book_draws() -> None:
    x = draw(4, 5)
    np.random.seed(3)
    kept = np.random.rand(4, 5) > 0.4
    np.random.seed(3)
    layer = layers.Dropout(0.4)
    np.testing.assert_array_equal(layer.forward(x), x * kept)
    np.testing.assert_array_equal(layer.backward(x), x * kept)
    np.testing.assert_allclose(layer.forward(x, train_flg=False), x * 0.6)
    np.random.seed(3)
    over_time = time_layers.TimeDropout(0.4)
    np.testing.assert_allclose(over_time.forward(x[None])[0], x * kept / 0.6)
    over_time.train_flg = False
    np.testing.assert_array_equal(over_time.forward(x[None])[0], x)


def test_states_and_gradients_have_the_books_names() -> None:
    layer = time_layers.TimeLSTM(draw(3, 20), draw(5, 20), draw(20), stateful=True)
    own = layer.params[0], layer.grads[0]
    layer.set_state(draw(2, 5))
    layer.forward(draw(2, 7, 3))
    layer.backward(draw(2, 7, 5))
    assert layer.h.shape == layer.c.shape == layer.dh.shape == (2, 5)
    assert layer.params[0] is own[0]
    assert layer.grads[0] is own[1]
    layer.set_state(None)
    layer.reset_state()
    assert layer.h is None
    assert layer.c is None
    assert time_layers.TimeEmbedding(own[0]).W is own[0]


def test_weights_that_are_shared_are_updated_once() -> None:
    W, b = draw(3, 5), draw(5)
    grads = [np.full((3, 5), 1.0), np.full(5, 2.0), np.full((5, 3), 4.0), np.full((3, 5), 8.0)]
    params, summed = trainer.remove_duplicate([W, b, W.T, W], grads)
    assert len(params) == 2
    np.testing.assert_array_equal(summed[0], np.full((3, 5), 13.0))
    equal = [np.zeros((2, 2)), np.zeros((2, 2))]
    assert len(trainer.remove_duplicate(equal, [np.ones((2, 2))] * 2)[0]) == 2


@pytest.mark.parametrize("wide", [False, True])
def test_gradients_are_clipped_to_their_exact_norm(wide: bool) -> None:
    """A table's gradient in float32: few large rows, many small ones, whose squares a single sum would lose."""
    table = draw(10_007, 131) / np.arange(1, 10_008)[:, None]
    grads = [(table.T if wide else table).astype("float32"), draw(7).astype("float32")]
    util.clip_grads(grads, 0.25)
    norm = np.sqrt(sum(np.sum(np.square(grad, dtype="float64")) for grad in grads))
    assert norm == pytest.approx(0.25, rel=1e-6)


class Counts:
    """A model that learns nothing and keeps what it was given."""

    def __init__(self) -> None:
        self.params, self.grads = [np.zeros(1)], [np.zeros(1)]
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def forward(self, x: np.ndarray, t: np.ndarray) -> float:
        self.seen.append((x, t))
        return float(len(self.seen))

    def backward(self) -> None:
        pass


def test_the_trainer_shuffles_as_the_book_does(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.arange(10)
    np.random.seed(1)
    first = np.random.permutation(np.arange(10))
    second = first[np.random.permutation(np.arange(10))]
    np.random.seed(1)
    model = Counts()
    own = trainer.Trainer(model, optimizer.SGD())
    own.fit(x, -x, max_epoch=2, batch_size=4, eval_interval=2)
    expected = [first[:4], first[4:8], second[:4], second[4:8]]
    for (batch_x, batch_t), rows in zip(model.seen, expected, strict=True):
        np.testing.assert_array_equal(batch_x, rows)
        np.testing.assert_array_equal(batch_t, -rows)
    assert own.loss_list == [1.0, 2.5]
    assert own.current_epoch == 2
    assert capsys.readouterr().out.splitlines() == [
        "| epoch 1 |  iter 1 / 2 | time 0[s] | loss 1.00",
        "| epoch 2 |  iter 1 / 2 | time 0[s] | loss 2.50",
    ]


def test_the_rnnlm_trainer_reads_on(capsys: pytest.CaptureFixture[str]) -> None:
    model = Counts()
    own = trainer.RnnlmTrainer(model, optimizer.SGD())
    own.fit(np.arange(20), np.arange(20) + 1, max_epoch=1, batch_size=2, time_size=3)
    np.testing.assert_array_equal(model.seen[0][0], [[0, 1, 2], [10, 11, 12]])
    np.testing.assert_array_equal(model.seen[2][0], [[6, 7, 8], [16, 17, 18]])
    np.testing.assert_array_equal(model.seen[2][1], [[7, 8, 9], [17, 18, 19]])
    assert own.time_idx == 9
    assert own.ppl_list == [pytest.approx(np.e)]
    assert "perplexity 2.72" in capsys.readouterr().out


def test_too_short_a_corpus_says_so() -> None:
    with pytest.raises(ValueError, match=r"at least batch_size \* time_size = 700 words, got 20: use more text"):
        trainer.RnnlmTrainer(Counts(), optimizer.SGD()).fit(np.arange(20), np.arange(20))
    with pytest.raises(ValueError, match=r"more than batch_size \* time_size = 350 words, got 350"):
        util.eval_perplexity(Counts(), np.arange(350))
    with pytest.raises(ValueError, match="at least batch_size = 32 rows, got 3"):
        trainer.Trainer(Counts(), optimizer.SGD()).fit(np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match=r"more than 2 \* window_size = 4 words, got 4"):
        util.create_contexts_target(np.arange(4), 2)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_ids_outside_the_vocabulary(wrong: int) -> None:
    for ids in (np.array([[0, wrong]]), [[0, wrong]]):
        with pytest.raises(IndexError, match=f"must lie in 0 .. 4, got {wrong}: give W a row for each id"):
            time_layers.TimeEmbedding(draw(5, 2)).forward(ids)
    with pytest.raises(IndexError, match=f"must lie in 0 .. 4, the vocabulary, got {wrong}"):
        util.convert_one_hot(np.array([wrong]), 5)


def test_words_are_counted() -> None:
    corpus, word_to_id, id_to_word = util.preprocess("a b a c. B")
    assert (corpus.tolist(), list(word_to_id), id_to_word[3]) == ([0, 1, 0, 2, 3, 1], ["a", "b", "c", "."], ".")
    expected = np.zeros((4, 4), dtype=int)
    for i, word in enumerate(corpus):
        for j in (i - 2, i - 1, i + 1, i + 2):
            if 0 <= j < len(corpus):
                expected[word, corpus[j]] += 1
    counts = util.create_co_matrix(corpus, 4, window_size=2)
    np.testing.assert_array_equal(counts, expected)
    total, each = expected.sum(), expected.sum(axis=0)
    pmi = np.log2(expected * total / (each * each[:, None]) + 1e-8)
    np.testing.assert_allclose(util.ppmi(counts), np.maximum(pmi, 0), rtol=1e-6)
    contexts, target = util.create_contexts_target(corpus, 2)
    assert (contexts.tolist(), target.tolist()) == ([[0, 1, 2, 3], [1, 0, 3, 1]], [0, 2])
    one_hot = util.convert_one_hot(contexts, 4)
    assert one_hot.dtype == np.int32
    np.testing.assert_array_equal(one_hot.argmax(axis=-1), contexts)


def test_what_is_similar_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"a": 0, "b": 1, "c": 2, "d": 3}
    names = {number: word for word, number in words.items()}
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    util.most_similar("a", words, names, vectors, top=2)
    util.most_similar("z", words, names, vectors)
    util.analogy("d", "a", "c", words, names, vectors, top=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["[query] a", f" b: {util.cos_similarity(vectors[1], vectors[0])}", " c: 0.0"]
    assert lines[4:] == ["z is not found", "", "[analogy] d:a = c:?", f" b: {(0.9 * 2 + 0.1) / np.sqrt(5)}"]


def test_answers_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    class Echo:
        params = (np.zeros(1),)

        def generate(self, question: np.ndarray, start_id: int, count: int) -> list[int]:
            assert start_id == 0
            return [1, 2, 1][:count]

    names = dict(enumerate("_xy"))
    question = np.array([[2, 1, 1]])
    assert util.eval_seq2seq(Echo(), question, np.array([[0, 1, 2]]), names, True, True) == 1
    assert util.eval_seq2seq(Echo(), question, np.array([[0, 2, 2]]), names) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Q xxy", "T xy"]
    assert lines[2].endswith(" xy")
    assert lines[3:] == ["---"]


def test_attention_hands_out_arrays_of_numpy_and_gradients_that_may_be_written_to() -> None:
    layer = attention_layer.TimeAttention()
    assert layer.attention_weights is None
    layer.forward(draw(2, 5, 3), draw(2, 4, 3))
    assert np.array(layer.attention_weights).shape == (4, 2, 5)
    dhs, _ = layer.backward(draw(2, 4, 3))
    dhs[:, -1] += draw(2, 3)
    one = attention_layer.Attention()
    one.forward(draw(2, 5, 3), draw(2, 3))
    assert one.attention_weight.shape == (2, 5)
