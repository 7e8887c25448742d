"""The examples of the README run as they stand, and say what it says."""

import re
from typing import Any

import pytest
from support import ROOT

BLOCKS = {
    name: re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    for name in ("README.md", "README.ja.md")
}


@pytest.mark.parametrize("name", BLOCKS)
def test_ten_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(BLOCKS[name][0], {})
    assert "input 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", BLOCKS)
def test_decoding_with_a_cache(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(BLOCKS[name][1], names)
    assert names["caches"][0].length == 16
    assert float(capsys.readouterr().out) < 5e-6
