"""Folders as `transformers` writes them: configuration, weights in safetensors, tokenizer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from attnbackends import Backend

from .._files import write_whole
from ._families import FAMILIES, family_of, options_of
from ._stored import FLOATS, Stored, TensorFiles, Unset, WeightsError, check, fill, import_safetensors

_NO_WEIGHTS = re.compile(r"(\.attn\.(bias|masked_bias)|\.rotary_emb\.inv_freq)$")
"""Names of constants that some files have beside weights: the causal mask, and speeds of rotary positions."""


def read(cls: Any, folder: Path, dtype: str | None, backend: Backend | None) -> Any:
    """`CausalLM.from_pretrained`: everything is checked before a weight is read."""
    config = _json(folder / "config.json")
    family, options = options_of(config)
    files = TensorFiles(*_weight_files(folder))
    shapes = {name: shape for name, shape in files.shapes.items() if not _NO_WEIGHTS.search(name)}
    if options["tied"]:
        shapes.pop("lm_head.weight", None)
    others = sorted({files.dtypes[name] for name in shapes} - set(FLOATS))
    if others:
        raise WeightsError(
            f"{folder} has weights in {', '.join(others)}, which is not supported: {', '.join(FLOATS)} are"
        )
    prefix = FAMILIES[family].prefix
    prefix = prefix if any(name.startswith(prefix) for name in shapes) else ""
    tokenizer, stop = _tokenizer(folder / "tokenizer.json"), _stop(folder, config)
    table = next((files.dtypes[name] for name in shapes if name.endswith(("wte.weight", "embed_tokens.weight"))), None)
    model = cls(**options, initializer=Unset(0, dtype or table or "float32", backend))
    arrays = stored(model, family, prefix)
    check(arrays, shapes, where=str(folder))
    fill(arrays, files)
    model.tokenizer, model.stop = tokenizer, stop
    return model


def write(model: Any, folder: Path) -> None:
    """`CausalLM.save_pretrained`."""
    family, config = family_of(model.options)
    safetensors = import_safetensors()
    arrays = {entry.name: entry.read() for entry in stored(model, family, FAMILIES[family].prefix)}
    dtype = str(next(iter(arrays.values())).dtype)
    config |= {"dtype": dtype, "torch_dtype": dtype}
    if model.stop:
        config["eos_token_id"] = model.stop[0] if len(model.stop) == 1 else list(model.stop)
    texts = {"config.json": config}
    if model.stop:  # what stands there goes before config.json
        texts = {"generation_config.json": {"eos_token_id": config["eos_token_id"]}} | texts
    folder.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save(arrays, {"format": "pt"})
    write_whole(folder / "model.safetensors", lambda path: path.write_bytes(content))
    if model.tokenizer is not None:
        text = model.tokenizer.to_str(pretty=True)
        write_whole(folder / "tokenizer.json", lambda path: path.write_text(text, encoding="utf-8"))
    for name, entries in texts.items():
        _write_json(folder / name, entries)


def _write_json(file: Path, entries: dict[str, Any]) -> None:
    text = json.dumps(entries, indent=2) + "\n"
    write_whole(file, lambda path: path.write_text(text, encoding="utf-8"))


def stored(model: Any, family: str, prefix: str) -> list[Stored]:
    """The arrays that a file of the family has for a model."""
    own = [Stored(prefix + e.name, e.params, e.transposed) for e in FAMILIES[family].stored(model)]
    head = [] if model.head is None else [Stored("lm_head.weight", (model.head.params[0],), transposed=True)]
    return own + head


def _weight_files(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        names = _json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise WeightsError(f"{index} must have a 'weight_map' of names to files")
        shards = sorted(set(names.values()))
        outside = [name for name in shards if Path(name).name != name]
        if outside or not shards:
            raise WeightsError(f"{index} must name files beside it, got {', '.join(outside) or 'none'}")
        return [folder / name for name in shards]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    hint = f"; {pickles[0]} is a pickle, which can run programs and is not read" if pickles else ""
    raise WeightsError(f"{folder} has neither model.safetensors nor model.safetensors.index.json{hint}")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{path} is missing: {path.parent} is no folder of a model that transformers wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _stop(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    found = (_json(path) if path.is_file() else {}).get("eos_token_id")
    found = config.get("eos_token_id") if found is None else found
    many = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(one, int) for one in many):
        raise WeightsError(f"`eos_token_id` of {folder} must be an id or a list of ids, got {found!r}")
    return tuple(many)


def _tokenizer(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None  # ids go in and out without it
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises has no class of its own
        raise WeightsError(f"{path} is no tokenizer of the library tokenizers: {error}") from None
