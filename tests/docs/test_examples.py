"""The examples of the pages run as they stand, in order and in one namespace for each page."""

import re
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

DOCS = ROOT / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LANGUAGE_MODEL = "language-models.md"


def pages() -> list[str]:
    """Pages with examples; notebooks are executed when the site is built."""
    paths = [path.relative_to(DOCS) for path in sorted(DOCS.rglob("*.md"))]
    paths = [path for path in paths if not {"_build", "notebooks"} & set(path.parts)]
    return [path.as_posix() for path in paths if EXAMPLE.search((DOCS / path).read_text(encoding="utf-8"))]


def prepare(page: str) -> dict[str, Any]:
    """What a page takes for granted."""
    if page != LANGUAGE_MODEL:
        return {}
    import numpy as np

    from attnlayers.models import CausalLM

    tokenizers = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["<unk>", "Attention", "is"])}
    model = CausalLM(4000, 8, 2, 16, 1, max_length=80)
    model.tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.save_pretrained("gpt2")
    model.tokenizer.save("gpt2/tokenizer.json")
    return {"ids": np.array([[1, 2, 0, 2]])}


@pytest.mark.parametrize("page", pages())
def test_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"} | prepare(page)
    text = (DOCS / page).read_text(encoding="utf-8")
    for match in EXAMPLE.finditer(text):
        line = text[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match[1], f"docs/{page}", "exec"), names)


def test_there_are_examples() -> None:
    assert {"getting-started.md", "ja/getting-started.md", "howto/masks.md", "engineer.md"} <= set(pages())


def test_the_cache_gives_what_one_pass_gives(capsys: pytest.CaptureFixture[str]) -> None:
    for page in ("howto/caches.md", "ja/layers.md"):
        names: dict[str, Any] = {}
        match = EXAMPLE.search((DOCS / page).read_text(encoding="utf-8"))
        assert match
        exec(match[1], names)
        assert names["caches"][0].length == 16
        assert float(capsys.readouterr().out) < 5e-6
