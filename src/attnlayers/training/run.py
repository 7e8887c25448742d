"""A run folder: everything that a training leaves, and all that it needs to go on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from .._files import is_aside
from ..data import DataError, Vocabulary
from ..models import Translator
from .files import RunError, write_whole
from .language import TextModel
from .plots import save_figure
from .settings import RENAMED, VERSION_1, Settings

METRICS = ("epoch", "step", "loss", "held_out_loss", "accuracy", "chrf", "perplexity", "tokens_per_second", "seconds")

CHECKPOINT = "attnlayers checkpoint 2"
WEIGHTS = "attnlayers weights 1"


def fingerprint(pairs: Iterable[tuple[str, str]]) -> str:
    """Tells one list of pairs from another."""
    digest = hashlib.sha256()
    for source, target in pairs:
        digest.update(f"{source}\t{target}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Checkpoint:
    """A moment between two steps, complete: going on from it is going on from there.

    Attributes
    ----------
    weights, optimizer : dict of str to NumPy array
    progress : dict
        What `Trainer` counts; JSON.
    """

    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    progress: dict[str, Any]


class RunFolder:
    """The files of one run.

    ========================== =====================================================
    ``config.json``            the settings, and a fingerprint of the data
    ``vocabulary.json``        the tokens
    ``checkpoint.safetensors`` weights, optimizer state and progress, one whole file
    ``weights.safetensors``    the weights of the best epoch, for `translate` and for others
    ``metrics.csv``            losses, accuracy and speed
    ``training.png``           losses and accuracy, drawn
    ``attention.png``          heat maps of some answers
    ``heads.png``              of a transformer: heat maps of each head of each layer, of one answer
    ========================== =====================================================
    """

    def __init__(self, path: Path, settings: Settings, data_fingerprint: str, vocabulary: Vocabulary) -> None:
        self.path = path
        self.settings = settings
        self.data_fingerprint = data_fingerprint
        self.vocabulary = vocabulary

    @classmethod
    def create(cls, path: Path, settings: Settings, pairs: list[tuple[str, str]], vocabulary: Vocabulary) -> Self:
        """Begin a run in a folder that is new or empty, or that a kill left before ``config.json`` was written."""
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the folder {path} cannot be made: {error.strerror}") from error
        run = cls(path, settings, fingerprint(pairs), vocabulary)
        run._write_text("vocabulary.json", vocabulary.to_json() + "\n")
        run.write_config(settings)
        return run

    @staticmethod
    def check_free(path: Path) -> None:
        """Refuse a folder that `create` would refuse for what is there."""
        if path.exists() and (not path.is_dir() or any(not _is_unfinished(file) for file in path.iterdir())):
            what = "holds files already" if path.is_dir() else "is a file"
            raise RunError(f"{path} {what}: choose another folder with --out, or go on with the run there by --resume")

    @classmethod
    def open(cls, path: Path) -> Self:
        """A run that was begun before.

        Raises
        ------
        RunError
            If the folder or one of its files is missing or not what it must be.
        """
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}")
        config = _read_json(path / "config.json")
        known = {field.name for field in fields(Settings)}
        try:
            config = VERSION_1 | {RENAMED.get(name, name): value for name, value in config.items()}
            data_fingerprint = config.pop("data_fingerprint")
            if set(config) != known:
                raise ValueError(f"keys {sorted(set(config) ^ known)} are missing or unknown")
            settings = Settings(**config)
        except (KeyError, TypeError, ValueError, AttributeError, RunError) as error:
            raise RunError(f"{path / 'config.json'} is not the configuration of a run: {error}") from error
        try:
            vocabulary = Vocabulary.from_json(_read_text(path / "vocabulary.json"))
        except DataError as error:
            raise RunError(f"{path / 'vocabulary.json'}: {error}") from error
        return cls(path, settings, data_fingerprint, vocabulary)

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of the run, which must be what they were when it began."""
        if self.settings.data != "dates" and not Path(self.settings.data).exists():
            raise RunError(
                f"{self.settings.data} does not exist, with which the run {self.path} began: "
                "if it was moved, say where to with --resume --data PATH"
            )
        pairs = self.settings.pairs()
        if fingerprint(pairs) != self.data_fingerprint:
            raise RunError(f"{self.settings.data} has changed since the run {self.path} began: start a new one")
        return pairs

    def move_data(self, path: str) -> None:
        """Take the pairs from another file from now on.

        Raises
        ------
        RunError
            If they are not the pairs of the run.
        """
        moved = replace(self.settings, data=path)
        if fingerprint(moved.pairs()) != self.data_fingerprint:
            raise RunError(
                f"{path} does not hold the pairs of {self.settings.data}, with which the run {self.path} began: "
                "give the file that does, or start a run in another --out"
            )
        self.write_config(moved)

    def discard(self) -> None:
        """Remove a run that has not come to its first checkpoint, and its folder if nothing else is in it."""
        if (self.path / "checkpoint.safetensors").exists():
            return
        self.sweep()
        for name in ("config.json", "vocabulary.json"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody put another file there
            self.path.rmdir()

    def sweep(self) -> None:
        """Remove what a kill left half written."""
        for file in self.path.iterdir():
            if is_aside(file):
                file.unlink(missing_ok=True)

    # -- writing

    def write_config(self, settings: Settings) -> None:
        """Keep the settings, changed ones too."""
        self.settings = settings
        config = asdict(settings) | {"data_fingerprint": self.data_fingerprint}
        self._write_text("config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old one or the new one."""
        arrays = {f"weights.{name}": array for name, array in checkpoint.weights.items()}
        arrays |= {f"optimizer.{name}": array for name, array in checkpoint.optimizer.items()}
        metadata = {"format": CHECKPOINT, "progress": json.dumps(checkpoint.progress)}
        self._write_arrays("checkpoint.safetensors", arrays, metadata)

    def write_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace the weights that `translate` uses."""
        self._write_arrays("weights.safetensors", dict(weights), {"format": WEIGHTS})

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the table of metrics."""

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, METRICS)
                table.writeheader()
                table.writerows(rows)

        write_whole(self.path / "metrics.csv", write)

    def write_figure(self, name: str, figure: Any) -> None:
        """Replace a picture by a matplotlib figure."""
        write_whole(self.path / name, lambda path: save_figure(figure, path))

    def _write_text(self, name: str, text: str) -> None:
        write_whole(self.path / name, lambda path: path.write_text(text, encoding="utf-8"))

    def _write_arrays(self, name: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        contiguous = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        # `save_file` would write aside once more, and leave that file behind where the process is killed.
        write_whole(self.path / name, lambda path: path.write_bytes(save(contiguous, metadata)))

    # -- reading

    def read_checkpoint(self) -> Checkpoint | None:
        """The last whole checkpoint, or None before the first."""
        path = self.path / "checkpoint.safetensors"
        if not path.exists():
            return None
        arrays, metadata = _read_arrays(path, CHECKPOINT)
        parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "optimizer": {}}
        for key, array in arrays.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = array
        return Checkpoint(parts["weights"], parts["optimizer"], json.loads(metadata.get("progress", "{}")))

    def load_model(self) -> Translator | TextModel:
        """The trained model."""
        path = self.path / "weights.safetensors"
        if not path.exists():
            raise RunError(f"{path} is not there yet: the run has finished no epoch; go on with --resume")
        arrays, _ = _read_arrays(path, WEIGHTS)
        model = self.settings.model(self.vocabulary)
        try:
            model.load_state(arrays)
        except ValueError as error:
            raise RunError(f"{path} does not fit config.json: {error}") from error
        return model


def _is_unfinished(file: Path) -> bool:
    """Whether a file may stand in a folder in which no run has begun: `create` writes the configuration last."""
    return file.name == "vocabulary.json" or is_aside(file)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: {path.parent} is no run folder, or not a whole one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _read_arrays(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise RunError(f"{path} is truncated or no safetensors file ({error})") from error
    if kind == CHECKPOINT and metadata.get("format") == "attnlayers checkpoint 1":
        raise RunError(
            f"{path} was written by version 0.1, which drew other batches and held out other pairs: "
            "`translate` answers from this run, to train begin a new one in another --out"
        )
    if metadata.get("format") != kind:
        raise RunError(f"{path} must be an {kind!r} file, got {metadata.get('format', 'one of another program')!r}")
    return arrays, metadata
