"""Every callable of the book's surface takes the book's arguments, by place and by name."""

import os
import subprocess
import sys
from ast import literal_eval
from importlib import import_module
from inspect import Parameter, signature

import pytest

RECURRENT = "forward(xs) backward(dhs) set_state(h) reset_state()"
LOSS = "forward(xs, ts) backward(dout=1)"

SIGNATURES = {
    "functions": "sigmoid(x) relu(x) softmax(x) cross_entropy_error(y, t)",
    "layers.MatMul": "MatMul(W) forward(x) backward(dout)",
    "layers.Affine": "Affine(W, b) forward(x) backward(dout)",
    "layers.Softmax": "Softmax() forward(x) backward(dout)",
    "layers.SoftmaxWithLoss": "SoftmaxWithLoss() forward(x, t) backward(dout=1)",
    "layers.Sigmoid": "Sigmoid() forward(x) backward(dout)",
    "layers.SigmoidWithLoss": "SigmoidWithLoss() forward(x, t) backward(dout=1)",
    "layers.Dropout": "Dropout(dropout_ratio=0.5) forward(x, train_flg=True) backward(dout)",
    "layers.Embedding": "Embedding(W) forward(idx) backward(dout)",
    "time_layers.RNN": "RNN(Wx, Wh, b) forward(x, h_prev) backward(dh_next)",
    "time_layers.LSTM": "LSTM(Wx, Wh, b) forward(x, h_prev, c_prev) backward(dh_next, dc_next)",
    "time_layers.GRU": "GRU(Wx, Wh, b) forward(x, h_prev) backward(dh_next)",
    "time_layers.TimeRNN": f"TimeRNN(Wx, Wh, b, stateful=False) {RECURRENT}",
    "time_layers.TimeLSTM": f"TimeLSTM(Wx, Wh, b, stateful=False) {RECURRENT.replace('(h)', '(h, c=None)')}",
    "time_layers.TimeGRU": f"TimeGRU(Wx, Wh, b, stateful=False) {RECURRENT}",
    "time_layers.TimeBiLSTM": "TimeBiLSTM(Wx1, Wh1, b1, Wx2, Wh2, b2, stateful=False) forward(xs) backward(dhs)",
    "time_layers.TimeEmbedding": "TimeEmbedding(W) forward(xs) backward(dout)",
    "time_layers.TimeAffine": "TimeAffine(W, b) forward(x) backward(dout)",
    "time_layers.Simple_TimeAffine": "Simple_TimeAffine(W, b) forward(xs) backward(dout)",
    "time_layers.TimeSoftmaxWithLoss": f"TimeSoftmaxWithLoss() {LOSS}",
    "time_layers.Simple_TimeSoftmaxWithLoss": f"Simple_TimeSoftmaxWithLoss() {LOSS}",
    "time_layers.TimeSigmoidWithLoss": f"TimeSigmoidWithLoss() {LOSS}",
    "time_layers.TimeDropout": "TimeDropout(dropout_ratio=0.5) forward(xs) backward(dout)",
    "attention_layer.WeightSum": "WeightSum() forward(hs, a) backward(dc)",
    "attention_layer.AttentionWeight": "AttentionWeight() forward(hs, h) backward(da)",
    "attention_layer.Attention": "Attention() forward(hs, h) backward(dout)",
    "attention_layer.TimeAttention": "TimeAttention() forward(hs_enc, hs_dec) backward(dout)",
    "optimizer.SGD": "SGD(lr=0.01) update(params, grads)",
    "optimizer.Momentum": "Momentum(lr=0.01, momentum=0.9) update(params, grads)",
    "optimizer.Nesterov": "Nesterov(lr=0.01, momentum=0.9) update(params, grads)",
    "optimizer.AdaGrad": "AdaGrad(lr=0.01) update(params, grads)",
    "optimizer.RMSprop": "RMSprop(lr=0.01, decay_rate=0.99) update(params, grads)",
    "optimizer.Adam": "Adam(lr=0.001, beta1=0.9, beta2=0.999) update(params, grads)",
    "trainer": "remove_duplicate(params, grads)",
    "trainer.Trainer": "Trainer(model, optimizer) plot(ylim=None) "
    "fit(x, t, max_epoch=10, batch_size=32, max_grad=None, eval_interval=20)",
    "trainer.RnnlmTrainer": "RnnlmTrainer(model, optimizer) plot(ylim=None) get_batch(x, t, batch_size, time_size) "
    "fit(xs, ts, max_epoch=10, batch_size=20, time_size=35, max_grad=None, eval_interval=20)",
    "base_model.BaseModel": "BaseModel() save_params(file_name=None) load_params(file_name=None)",
    "util": "preprocess(text) cos_similarity(x, y, eps=1e-8) convert_one_hot(corpus, vocab_size) "
    "most_similar(query, word_to_id, id_to_word, word_matrix, top=5) ppmi(C, verbose=False, eps=1e-8) "
    "create_co_matrix(corpus, vocab_size, window_size=1) create_contexts_target(corpus, window_size=1) "
    "to_cpu(x) to_gpu(x) clip_grads(grads, max_norm) normalize(x) "
    "eval_perplexity(model, corpus, batch_size=10, time_size=35) "
    "eval_seq2seq(model, question, correct, id_to_char, verbose=False, is_reverse=False) "
    "analogy(a, b, c, word_to_id, id_to_word, word_matrix, top=5, answer=None)",
}


@pytest.mark.parametrize("place", SIGNATURES)
def test_the_books_arguments(place: str) -> None:
    module, _, owner = place.partition(".")
    holder = import_module(f"attnlayers.book.{module}")
    for written in SIGNATURES[place].replace(") ", ")\n").splitlines():
        name, _, inside = written.rstrip(")").partition("(")
        called = getattr(holder, name) if name == owner or not owner else getattr(getattr(holder, owner), name)
        found = [one for one in signature(called).parameters.values() if one.name != "self"]
        wanted = [argument.partition("=") for argument in inside.split(", ") if argument]
        assert [one.name for one in found[: len(wanted)]] == [argument for argument, *_ in wanted], written
        assert all(one.kind is Parameter.POSITIONAL_OR_KEYWORD for one in found), written
        for one, (_, given, default) in zip(found, wanted, strict=False):
            if given:
                assert one.default == literal_eval(default), written
        assert all(one.default is not Parameter.empty for one in found[len(wanted) :]), written  # ours may be left out


def test_plt_is_imported_for_those_who_ask() -> None:
    code = (
        "import sys, attnlayers.book.trainer as trainer\nprint('matplotlib' in sys.modules, trainer.plt.__name__)\n"
        "try:\n    trainer.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    expected = ["False matplotlib.pyplot", "module 'attnlayers.book.trainer' has no attribute 'nothing'"]
    assert ended.stdout.splitlines() == expected, ended.stderr
