"""A task that a tiny model learns in seconds, and runs on it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from attnbackends import get_backend
from attnlayers.data import Vocabulary
from attnlayers.training import RunFolder, Settings


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models on NumPy, whatever the environment asks for: only there a run is the same to the last bit."""
    monkeypatch.setattr("attnbackends.backend", get_backend("numpy"))


@pytest.fixture
def copy_task(tmp_path: Path) -> Path:
    """A file of 300 pairs: a few letters, and the same letters."""
    rng = random.Random(0)
    words = ("".join(rng.choices("abcd", k=rng.randint(1, 4))) for _ in range(300))
    path = tmp_path / "copy.tsv"
    path.write_text("".join(f"{word}\t{word}\n" for word in words), encoding="utf-8")
    return path


@pytest.fixture
def begin(tmp_path: Path, copy_task: Path) -> Callable[..., RunFolder]:
    """Begin a run of a tiny model on the copy task in a new folder of that name."""

    def begin(name: str = "run", **changes: object) -> RunFolder:
        tiny = {
            "data": str(copy_task),
            "batch_size": 12,
            "embedding_size": 4,
            "hidden_size": 8,
            "epochs": 2,
            "lr": 0.01,
        }
        settings = Settings(**(tiny | changes))  # type: ignore[arg-type]
        pairs = settings.pairs()
        return RunFolder.create(tmp_path / name, settings, pairs, Vocabulary.from_pairs(pairs, settings.unit))

    return begin


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures, for tests of something else: the real ones take most of the time of a tiny run."""
    from matplotlib.figure import Figure

    for name in ("training_figure", "attention_figure"):
        monkeypatch.setattr(f"attnlayers.training.trainer.{name}", lambda *data: Figure(figsize=(0.1, 0.1)))
