"""`attnlayers train`: from a file to a run folder, and what is refused before it begins."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attnlayers.data import Vocabulary
from attnlayers.training import RunFolder, Settings

Tiny = tuple[str, ...]

FILES = {
    *("config.json", "vocabulary.json", "checkpoint.safetensors", "weights.safetensors"),
    *("metrics.csv", "training.png", "attention.png"),
}


def test_it_leaves_a_run(trained: Any) -> None:
    assert {path.name for path in trained.path.iterdir()} == FILES
    run = RunFolder.open(trained.path)
    assert run.settings == Settings(
        data=str(trained.data), epochs=1, batch_size=8, embedding_size=4, hidden_size=8, lr=0.01
    )
    train, test = run.settings.split_pairs(run.pairs())
    known = [run.pairs()[place] for place in sorted(train)]
    assert run.vocabulary == Vocabulary.from_pairs(known, "character", unknown=True, normalize="NFC")
    assert not {run.pairs()[place][0] for place in test} & {source for source, _ in known}
    checkpoint = run.read_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.progress["epoch"], checkpoint.progress["optimizer_steps"]) == (1, 34)
    for name in ("training.png", "attention.png"):
        with Image.open(trained.path / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 400


def test_it_tells_what_it_does(trained: Any) -> None:
    assert trained.said.stderr == ""
    first, *others = trained.said.stdout.splitlines()
    assert first.startswith("270 pairs to learn from, 30 held out, 8 tokens, on numpy ")
    assert re.search(
        r"^epoch 1/1  loss \d+\.\d{4}  held out \d+\.\d{4}  exact \d+\.\d\d%  chrF \d+\.\d  best  [\d,]+ tokens/s",
        "\n".join(others),
        re.MULTILINE,
    )
    assert "run: weights of epoch 1, metrics.csv, training.png, attention.png" in others


def test_what_to_try_next_works(trained: Any, attnlayers: Any) -> None:
    *_, last = trained.said.stdout.splitlines()
    program, *arguments = shlex.split(last.removeprefix("try it: "))
    assert program == "attnlayers"
    assert arguments[:2] == ["translate", "run"]
    ended = type(attnlayers)(trained.path.parent)(*arguments)
    assert ended.returncode == 0, ended
    assert ended.stdout.count("\n") == 1


def test_the_book_s_format(attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny) -> None:
    make_pairs(attnlayers.cwd / "date.txt", 40, "{0:<7}_{0:<5}\n")
    ended = attnlayers.train("date.txt", *tiny, "--no-reverse", "--seed", 3, "--max-grad-norm", 2.5)
    assert ended.returncode == 0, ended
    run = RunFolder.open(attnlayers.cwd / "runs" / "date")  # named after the file
    assert (run.settings.reverse, run.settings.seed, run.settings.max_grad_norm) == (False, 3, 2.5)
    assert " " not in "".join(token for pair in run.pairs() for token in pair), "padding is no text"
    assert len(run.vocabulary) == 8


NO_PICTURES = """
from attnlayers.training import RunFolder, trainer
trainer.training_figure = trainer.attention_figure = RunFolder.write_figure = lambda *arguments: None
"""

FEWER_DATES = """
from attnlayers.data import generate_dates
from attnlayers.training import settings
settings.generate_dates = lambda seed: generate_dates(100, seed)
"""


@pytest.mark.parametrize("data", [[], ["dates"]])
def test_dates(attnlayers: Any, tiny: Tiny, data: list[str]) -> None:
    ended = attnlayers.train(*data, *tiny, before=FEWER_DATES)
    assert ended.returncode == 0, ended
    assert ended.stdout.startswith("90 pairs to learn from, 10 held out")
    run = RunFolder.open(attnlayers.cwd / "runs" / "dates")
    assert (run.settings.data, run.settings.unit) == ("dates", "character")
    assert set("0123456789-") <= set(run.vocabulary.names(range(len(run.vocabulary))))


def test_words(attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny) -> None:
    make_pairs(attnlayers.cwd / "p.tsv", 40, "the {0} is\tΔ {0}\n")
    ended = attnlayers.train("p.tsv", *tiny, "--unit", "word", "--out", "words")
    assert ended.returncode == 0, ended
    run = RunFolder.open(attnlayers.cwd / "words")
    assert run.vocabulary.unit == "word"
    assert run.vocabulary.encode("the Δ never seen")[2:] == [run.vocabulary.UNK] * 2
    assert run.settings.min_count == 2
    assert attnlayers("translate", "words", "the word is not known").returncode == 0


@pytest.mark.parametrize(
    "form",
    ["{0}[/x] [bold]\t{0}\n", '{0} "quoted" $HOME `x` it\'s\t{0}\n'],
    ids=["markup", "quotes"],
)
def test_texts_that_mean_something_elsewhere(
    attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny, form: str
) -> None:
    make_pairs(attnlayers.cwd / "p.tsv", 40, form)
    ended = attnlayers.train("p.tsv", *tiny, "--out", "run")
    assert ended.returncode == 0, ended.stderr.splitlines()[-1]
    assert ended.stderr == ""
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("try it: ")]
    *_, text = shlex.split(line)
    assert text in {source for source, _ in RunFolder.open(attnlayers.cwd / "run").pairs()}


def test_a_folder_with_a_name_of_any_kind(attnlayers: Any, pairs: Path, tiny: Tiny) -> None:
    name = "my runs [today]/a name that is long enough to pass the end of a line of eighty characters"
    ended = attnlayers.train(pairs, *tiny, "--out", name)
    assert ended.returncode == 0, ended
    assert f"{name}: weights of epoch 1, metrics.csv, training.png, attention.png" in ended.stdout.splitlines()
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("try it: ")]
    assert shlex.split(line)[4] == name


def test_what_is_there_is_left_alone(attnlayers: Any, trained: Any, pairs: Path, tiny: Tiny) -> None:
    before = {path: path.read_bytes() for path in trained.path.iterdir()}
    message = attnlayers.fails("train", pairs, *tiny, "--out", trained.path)
    assert f"{trained.path} holds files already: choose another folder with --out, or go on with" in message
    assert {path: path.read_bytes() for path in trained.path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "p.tsv is empty; write one source<TAB>target pair a line"),
        (b"a\tb\nc d\n", "p.tsv, line 2: expected one tab between source and target, got none in 'c d'"),
        (b"a\tb\nc\xff\td\n", "p.tsv, line 2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a\tb\n" * 9, "holding out 0.1 of the pairs takes at least 10 of them, got 9"),
    ],
    ids=["empty", "no tab", "not UTF-8", "too few"],
)
def test_a_malformed_file(attnlayers: Any, tiny: Tiny, content: bytes, message: str) -> None:
    (attnlayers.cwd / "p.tsv").write_bytes(content)
    assert message in attnlayers.fails("train", "p.tsv", *tiny, "--out", "run")
    assert not (attnlayers.cwd / "run").exists(), "a folder would be in the way of the next try"


def test_a_file_that_is_none(attnlayers: Any) -> None:
    assert "gone.tsv does not exist; give a file" in attnlayers.fails("train", "gone.tsv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", 0], "--epochs must be positive, got 0"),
        (["--seed", -1], "--seed must be 0 or more, got -1"),
        (["--unit", "letter"], "--unit must be one of character, word, subword, got 'letter'"),
    ],
)
def test_options_that_make_no_sense(attnlayers: Any, pairs: Path, options: list[Any], message: str) -> None:
    assert attnlayers.fails("train", pairs, *options, "--out", "run") == message
    assert [*attnlayers.cwd.iterdir()] == [pairs]


def test_a_folder_that_cannot_be_made(attnlayers: Any, pairs: Path, tiny: Tiny) -> None:
    message = attnlayers.fails("train", pairs, *tiny, "--out", pairs / "run")
    assert message == f"the folder {pairs / 'run'} cannot be made: Not a directory"


def test_a_loss_that_becomes_no_number(attnlayers: Any, pairs: Path, tiny: Tiny) -> None:
    message = attnlayers.fails("train", pairs, *tiny, "--batch-size", 16, "--lr", 1e37, "--out", "run")
    assert re.fullmatch(r"the loss became (nan|inf) in epoch 1: start again with a smaller --lr", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--heads", 8], "--heads belongs to --architecture transformer or lm, got seq2seq: leave it out"),
        (
            ["--unit", "subword", "--vocab-size", 6],
            "--vocab-size must be 10 or more for 5 different characters, got 6",
        ),
        (
            ["--unit", "word", "--min-count", 999],
            "no word occurs 999 times or more, so that --min-count 999 leaves nothing: give --min-count",
        ),
        (["--max-length", 1, "--unit", "character", "--split", "book", "--seed", 5], ""),
    ],
    ids=["heads", "vocab-size", "min-count", "book"],
)
def test_what_cannot_begin_leaves_nothing(attnlayers: Any, pairs: Path, options: list[Any], message: str) -> None:
    if message:
        assert attnlayers.fails("train", pairs, *options, "--out", "run").startswith(message)
        assert [*attnlayers.cwd.iterdir()] == [pairs]
    else:
        ended = attnlayers.train(pairs, *options, "--epochs", 1, "--hidden-size", 8, "--out", "run")
        assert re.search(r"^\d+ pairs have more than 1 tokens and are left out$", ended.stdout, re.MULTILINE), ended


NO_MEMORY = """
from attnlayers.training import Trainer
def step(self, batch):
    raise MemoryError("Unable to allocate 21.0 GiB")
Trainer._step = step
"""


def test_memory_that_cannot_be_had(attnlayers: Any, pairs: Path, tiny: Tiny) -> None:
    assert attnlayers.fails("train", pairs, *tiny, "--out", "run", before=NO_MEMORY) == (
        "there is not enough memory (Unable to allocate 21.0 GiB): "
        "a smaller --batch-size, --max-length, --vocab-size or --hidden-size needs less"
    )
    assert [*attnlayers.cwd.iterdir()] == [pairs], "a folder would be in the way of the next try"
    assert "--hidden-size needs less" in attnlayers.fails("train", pairs, "--hidden-size", 10**7, "--out", "run")
    assert [*attnlayers.cwd.iterdir()] == [pairs]


def test_a_third_column(attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny) -> None:
    make_pairs(attnlayers.cwd / "p.tsv", 40, "{0}\t{0}\tCC-BY 2.0\n")
    assert "--columns 1,2 takes the first two columns" in attnlayers.fails("train", "p.tsv", *tiny, "--out", "run")
    ended = attnlayers.train("p.tsv", *tiny, "--columns", "1,2", "--out", "run")
    assert ended.returncode == 0, ended
    assert RunFolder.open(attnlayers.cwd / "run").settings.columns == "1,2"


def test_subwords_in_a_console_without_unicode(attnlayers: Any, make_pairs: Callable[..., Path], tiny: Tiny) -> None:
    make_pairs(attnlayers.cwd / "p.tsv", 60, "é{0}{0} the\tthe {0}é\n")
    arguments = ("p.tsv", *tiny, "--unit", "subword", "--vocab-size", 40, "--out", "run")
    ended = attnlayers("train", *arguments, PYTHONIOENCODING="ascii", before=NO_PICTURES)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert RunFolder.open(attnlayers.cwd / "run").vocabulary.unit == "subword"
    assert r"try it: attnlayers translate run '\xe9" in ended.stdout


def test_the_configuration_names_the_file_from_the_root(attnlayers: Any, trained: Any) -> None:
    assert json.loads((trained.path / "config.json").read_text())["data"] == str(trained.data.resolve())
