"""What importing loads and prints, the public names, and the examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest
from support import ROOT, output_of

import attnlayers
import attnlayers.functional
import attnlayers.layers

MODULES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for root in (ROOT / "src", ROOT / "backends")
    for path in root.rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("attnbackends", {"attnlayers", "cupy", "torch", "array_api_strict", "threadpoolctl"}),
        ("attnlayers", {"cupy", "torch", "array_api_strict", "matplotlib", "typer"}),
    ],
)
def test_importing_leaves_others_unloaded(module: str, unloaded: set[str]) -> None:
    loaded = output_of(f"import sys, {module}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))")
    assert module in loaded.split()
    assert not unloaded & set(loaded.split())


def further_than_numpy(statement: str) -> set[str]:
    """The modules that a statement loads and ``import numpy`` does not."""
    loaded, by_numpy = (
        set(output_of(f"import sys; {code}; print(*sys.modules)").split()) for code in (statement, "import numpy")
    )
    return loaded - by_numpy


@pytest.mark.parametrize("statement", ["from attnlayers.layers import *", "from attnlayers.functional import *"])
def test_nothing_slow_is_loaded_that_numpy_does_not_load(statement: str) -> None:
    further = further_than_numpy(statement)
    assert "attnlayers.functional.checks" in further
    slow = {"importlib.metadata", "email", "numpy.random", "concurrent.futures", "dataclasses", "logging"}
    assert not slow & further


@pytest.mark.parametrize("module", ["attnbackends", "attnlayers"])
def test_importing_prints_nothing_and_starts_no_thread(module: str) -> None:
    assert output_of(f"import {module}") == ""
    assert output_of(f"import {module}, threading; print(threading.active_count())") == "1"


def test_importing_leaves_the_benchmarks_unloaded() -> None:
    assert output_of("import sys, attnlayers.training; print('attnlayers.bench' in sys.modules)") == "False"
    modules = "cases, contenders, duel, loops, machine, memory, peers, run, targets, training"
    loaded = output_of(f"import sys; from attnlayers.bench import {modules}; print(*sys.modules)").split()
    assert not {"torch", "jax", "cupy", "matplotlib.figure", "typer"} & set(loaded)


def test_importing_writes_no_file(tmp_path: Path) -> None:
    output_of(f"import os; os.chdir({str(tmp_path)!r}); import attnlayers", PYTHONDONTWRITEBYTECODE="1")
    assert list(tmp_path.iterdir()) == []


def test_public_names_of_functional() -> None:
    pairs = [
        "additive_attention",
        "affine",
        "alibi",
        "attention",
        "attention_weights",
        "cross_entropy",
        "dropout",
        "embedding",
        "gelu",
        "gru",
        "layer_norm",
        "local_attention",
        "lstm",
        "relu",
        "rms_norm",
        "rnn",
        "rotary",
        "softmax",
        "swiglu",
        "weighted_sum",
    ]
    both = {f"{pair}{end}" for pair in pairs for end in ("", "_backward")}
    assert set(attnlayers.functional.__all__) == both | {"alibi_slopes"}
    assert all(callable(getattr(attnlayers.functional, name)) for name in attnlayers.functional.__all__)


def test_public_names_of_layers() -> None:
    assert sorted(attnlayers.layers.__all__) == [
        "AdditiveAttention",
        "Affine",
        "Attention",
        "AttentionWeight",
        "Dropout",
        "Embedding",
        "FeedForward",
        "GRU",
        "GeneralAttention",
        "Initializer",
        "KVCache",
        "LSTM",
        "Layer",
        "LayerNorm",
        "LearnedPositions",
        "LocalAttention",
        "MultiHeadAttention",
        "RMSNorm",
        "RNN",
        "SinusoidalPositions",
        "Softmax",
        "SoftmaxWithLoss",
        "TimeAdditiveAttention",
        "TimeAffine",
        "TimeAttention",
        "TimeBiLSTM",
        "TimeDropout",
        "TimeEmbedding",
        "TimeGRU",
        "TimeGeneralAttention",
        "TimeLSTM",
        "TimeLocalAttention",
        "TimeRNN",
        "TimeSoftmaxWithLoss",
        "TransformerDecoder",
        "TransformerDecoderLayer",
        "TransformerEncoder",
        "TransformerEncoderLayer",
        "WeightSum",
    ]
    for name in attnlayers.layers.__all__:
        assert name in ("Initializer", "KVCache") or issubclass(
            getattr(attnlayers.layers, name), attnlayers.layers.Layer
        )
        assert getattr(attnlayers, name) is getattr(attnlayers.layers, name)


def test_no_module_stands_in_the_place_of_a_function() -> None:
    modules = {name.rpartition(".")[2] for name in MODULES if name.startswith("attnlayers.functional.")}
    assert not modules & set(attnlayers.functional.__all__)


@pytest.mark.parametrize("name", ["attnlayers", "attnlayers.functional", "attnlayers.layers"])
def test_names_that_there_are_not(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'TimeAttentoin'"):
        _ = module.TimeAttentoin
    with pytest.raises(ImportError, match="cannot import name 'TimeAttentoin'"):
        exec(f"from {name} import TimeAttentoin")
    starred = output_of(f"from {name} import *; print(*sorted(n for n in dir() if n[:2] != '__'))")
    assert starred.split() == sorted(module.__all__)


def test_public_names_of_the_package() -> None:
    packages = {"book", "data", "distributed", "functional", "layers", "models", "training"}
    own = packages | {"GradientError", "explain", "gradcheck", "load", "save", "view"}
    assert set(attnlayers.__all__) == own | set(attnlayers.layers.__all__)
    assert all(hasattr(attnlayers, name) for name in attnlayers.__all__)


@pytest.mark.parametrize(
    ("name", "home"),
    [("Adam", "training"), ("Transformer", "models"), ("Vocabulary", "data"), ("softmax", "functional")],
)
def test_a_name_that_lives_elsewhere_says_where(name: str, home: str) -> None:
    assert not hasattr(attnlayers, name)
    with pytest.raises(
        AttributeError, match=f"^module 'attnlayers' has no attribute '{name}': it is in attnlayers.{home}$"
    ):
        getattr(attnlayers, name)
    with pytest.raises(ImportError, match=f"^{name} is in attnlayers.{home}: from attnlayers.{home} import {name}$"):
        exec(f"from attnlayers import {name}")


def test_packages_are_there_when_they_are_used() -> None:
    code = "import sys, attnlayers; print('loaded', *(n for n in sys.modules if n.startswith('attnlayers.'))); "
    code += "print(attnlayers.training.Adam.__name__, attnlayers.models.Transformer.__name__, attnlayers.book.__name__)"
    assert output_of(code).splitlines() == ["loaded", "Adam Transformer attnlayers.book"]


@pytest.mark.parametrize(
    "before", ["", "from attnlayers import GradientError", "import attnlayers._gradcheck", "from attnlayers import *"]
)
def test_gradcheck_is_the_function_and_not_its_module(before: str) -> None:
    assert output_of(f"{before}\nfrom attnlayers import gradcheck; print(callable(gradcheck))") == "True"


def test_every_public_name_has_a_docstring() -> None:
    for module in (attnlayers.functional, attnlayers.layers):
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{module.__name__}.{name}"


def test_modules_are_found() -> None:
    assert {"attnbackends", "attnbackends._base", "attnlayers", "attnlayers.functional._attention"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs an extra: {error}")
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0, f"{failed} of {tried} examples fail"
