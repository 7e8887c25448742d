"""Pictures: what they show, and that they are pictures whatever the texts are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from PIL import Image
from support import output_of

from attnlayers.page.weights import Attention
from attnlayers.training.plots import attention_figure, heads_figure, save_figure, training_figure
from attnlayers.translation import Translation


def row(epoch: int, step: int, **values: float) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": step,
        "loss": None,
        "held_out_loss": None,
        "accuracy": None,
        "chrf": None,
        "tokens_per_second": 1.0,
        "seconds": 1.0,
    } | values


METRICS = [
    *(row(1, 20, loss=2.5), row(1, 40, loss=1.25), row(1, 40, loss=2, held_out_loss=3, accuracy=0.25)),
    *(row(2, 60, loss=0.5), row(2, 80, loss=0.1), row(2, 80, loss=0.3, held_out_loss=0.7, accuracy=0.9975)),
]


def answer(source: Sequence[str], target: Sequence[str], seed: int = 0) -> Translation:
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(source)), size=len(target))
    return Translation("".join(target), list(source), list(target), weights)


def saved(figure: Figure, tmp_path: Path) -> tuple[int, int]:
    """The size of the picture in pixels, after a check that it is a PNG with something on it."""
    path = tmp_path / "picture.png"
    figure.savefig(path, dpi=150)
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        assert len(image.convert("L").resize((64, 64)).getcolors() or []) > 1
        return image.size


def test_training_shows_loss_and_accuracy(tmp_path: Path) -> None:
    figure = training_figure(METRICS)
    losses, accuracies = figure.axes
    np.testing.assert_array_equal(losses.lines[0].get_xydata(), [[20, 2.5], [40, 1.25], [60, 0.5], [80, 0.1]])
    np.testing.assert_array_equal(losses.lines[1].get_xydata(), [[40, 3], [80, 0.7]])
    np.testing.assert_allclose(accuracies.lines[0].get_xydata(), [[40, 25], [80, 99.75]])
    assert len(accuracies.lines) == 1
    assert losses.get_title() == "Training"
    legend = losses.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training loss", "held-out loss", "exact match"]
    assert losses.get_yscale() == "log"
    assert losses.get_xlabel() == "step"
    assert "loss" in losses.get_ylabel()
    assert "held-out" in accuracies.get_ylabel()
    assert ["25.00%" in accuracies.texts[0].get_text(), "99.75%" in accuracies.texts[1].get_text()] == [True, True]
    width, height = saved(figure, tmp_path)
    _, answers = training_figure([entry | {"chrf": 40.5} for entry in METRICS]).axes
    np.testing.assert_allclose(answers.lines[1].get_xydata(), [[40, 40.5], [80, 40.5]])
    assert 600 < width < 3000
    assert 400 < height < 2000


def test_training_before_the_first_evaluation(tmp_path: Path) -> None:
    assert min(saved(training_figure(METRICS[:1]), tmp_path)) > 400


def test_attention_shows_the_weights(tmp_path: Path) -> None:
    answers = [answer("abc", ["x", "y", "<eos>"]), answer(["␣", "d"], ["<eos>"], seed=1), answer("efgh", "zw", seed=2)]
    figure = attention_figure(answers)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "source"]
    assert len(panels) == 3
    for panel, one in zip(panels, answers, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), one.weights)
        assert [tick.get_text() for tick in panel.get_xticklabels()] == one.source_tokens
        assert [tick.get_text() for tick in panel.get_yticklabels()] == one.target_tokens
        assert panel.images[0].get_clim() == (0, 1)  # the same colours in all panels
        assert panel.get_ylabel() == "output"
    width, height = saved(figure, tmp_path)
    assert 600 < width < 4000
    assert 400 < height < 4000


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_any_number_of_answers(tmp_path: Path, count: int) -> None:
    figure = attention_figure([answer("abc", "xy", seed=i) for i in range(count)])
    assert sum(axes.get_xlabel() == "source" for axes in figure.axes) == count
    assert min(saved(figure, tmp_path)) > 200


@pytest.mark.parametrize(
    "tokens",
    [["$", "a", "$"], ["$5$", "or", "$6"], [r"$\q$", "b"], ["_", "^", "{", "%", "\\", "#"], ["<eos>", "\\n", "␣"]],
    ids=["dollars", "prices", "TeX", "signs", "escapes"],
)
def test_tokens_are_shown_as_they_are(tmp_path: Path, tokens: list[str]) -> None:
    figure = attention_figure([answer(tokens, tokens)])
    labels = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    assert [label.get_text().replace(r"\$", "$") for label in labels] == tokens * 2
    assert not [label for label in labels if label.get_parse_math() and is_math_text(label.get_text())]
    assert min(saved(figure, tmp_path)) > 100


@pytest.mark.parametrize(("source", "target"), [(250, 2), (3, 250), (1, 1), (96_000, 3), (1_500, 1_500)])
def test_texts_of_any_length(tmp_path: Path, source: int, target: int) -> None:
    weights = np.full((target, source), 1 / source, np.float32)
    weights[-1, -1] = 0.75
    figure = attention_figure([Translation("", ["a"] * source, ["b"] * target, weights)] * 3)
    (image,) = figure.axes[0].images
    assert max(image.get_array().shape) <= 1000
    assert image.get_array().max() == 0.75, "what stands out is still there"
    assert image.get_extent() == [-0.5, source - 0.5, target - 0.5, -0.5]
    assert len(figure.axes[0].get_xticks()) <= 100
    assert len(figure.axes[0].get_yticks()) <= 100
    assert max(saved(figure, tmp_path)) <= 4000


def test_many_heads_over_a_long_text(tmp_path: Path) -> None:
    weights = np.full((2, 4, 300, 5000), 1 / 5000, np.float16)
    figure = heads_figure([Attention("cross", weights, ["b"] * 300, ["abc"] * 5000, ("target", "source"))])
    assert max(saved(figure, tmp_path)) <= 4000


@settings(max_examples=5, deadline=None)
@given(
    layers=st.integers(1, 60), heads=st.integers(1, 40), kinds=st.integers(1, 3), source=st.integers(1, 400),
    target=st.integers(1, 400),
)  # fmt: skip
def test_no_picture_of_heads_is_too_large(layers: int, heads: int, kinds: int, source: int, target: int) -> None:
    assume(1 < layers * heads <= 60)
    weights = np.full((layers, heads, target, source), 1 / source, np.float32)
    one = Attention("cross", weights, ["b"] * target, ["a"] * source, ("target", "source"))
    figure = heads_figure([one] * kinds)
    assert max(pixels_of(figure)) <= 4000


@pytest.mark.parametrize("size", [(14.0, 10.0), (40.0, 3.0), (3.0, 200.0), (26.67, 26.67), (26.663, 0.5)])
def test_no_picture_is_too_large(tmp_path: Path, size: tuple[float, float]) -> None:
    figure = Figure(figsize=size)
    figure.text(0.5, 0.5, "x")
    save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) <= 4000
        assert max(image.size) > min(3900, 140 * max(size))


def pixels_of(figure: Figure) -> tuple[float, float]:
    """What `save_figure` makes of a figure, without drawing it."""
    width, height = figure.get_size_inches()
    dpi = min(150, 4000 / max(width, height))
    return width * dpi, height * dpi


def test_the_right_answer_beside_the_given_one(tmp_path: Path) -> None:
    answers = [answer("abc", "xy"), answer("de", "zw", seed=1), answer("f", "v" * 500, seed=2)]
    figure = attention_figure(answers, ["xy", "zv\x1b", "u" * 900])
    titles = [axes.get_title() for axes in figure.axes if axes.get_xlabel() == "source"]
    assert titles[:2] == ["right: xy", "given: zw\nright: zv\\x1b"]
    given_, right = titles[2].splitlines()
    assert given_.startswith("given: vvvv")
    assert right.startswith("right: uuuu")
    assert max(len(given_), len(right)) < 200
    assert min(saved(figure, tmp_path)) > 100
    assert not [axes.get_title() for axes in attention_figure(answers).axes if axes.get_title()]


@pytest.mark.filterwarnings("ignore:no installed font")
def test_any_script_is_drawn(tmp_path: Path) -> None:
    tokens = ["日", "本", "한", "ة", "🙂"]
    save_figure(attention_figure([answer(tokens, tokens)]), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_nothing_global_of_matplotlib_changes(tmp_path: Path) -> None:
    """Whatever was set before, and whatever the texts are; in a process that never chose a backend."""
    code = f"""
import warnings
import matplotlib
import numpy as np
from pathlib import Path
from attnlayers.bench.picture import bench_figure
from attnlayers.bench.run import Report
from attnlayers.page.weights import Attention
from attnlayers.training.plots import attention_figure, heads_figure, picture_formats, save_figure, training_figure
from attnlayers.translation import Translation

matplotlib.rcParams["font.family"] = ["serif"]
matplotlib.rcParams["lines.linewidth"] = 7.0
before = dict(dict.items(matplotlib.rcParams))
warnings.filterwarnings("ignore", message="no installed font")
filters = list(warnings.filters)
tokens = list("東京ab")
answer = Translation("abcd", tokens, tokens, np.eye(4))
heads = [Attention("cross", np.ones((2, 3, 4, 4)) / 4, tokens, tokens, ("target", "source"))]
row = dict(epoch=1, step=1, held_out_loss=None, chrf=None, loss=1.0, accuracy=0.5, tokens_per_second=1.0, seconds=1.0)
figures = [training_figure([row, row | dict(step=2)]), attention_figure([answer]), heads_figure(heads)]
figures.append(bench_figure(Report({{}}, 1.0)))
for i, figure in enumerate(figures):
    assert "png" in picture_formats()
    save_figure(figure, Path({str(tmp_path)!r}) / f"{{i}}.png")
after = dict(dict.items(matplotlib.rcParams))
print(before == after, filters == warnings.filters, "matplotlib.pyplot" in __import__("sys").modules)
"""
    assert output_of(code) == "True True False"
