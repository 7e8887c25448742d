"""The figures on the pages are those of the files in ``benchmarks/results``."""

import json
import re

import pytest
from support import ROOT

from benchmarks import pages


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_shows_what_was_measured(page: str) -> None:
    """Where this fails, other results have been put there: ``python -m benchmarks.pages``."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert pages.rewritten(page) == text
    assert text.count("<!-- measured: ") == text.count("<!-- /measured -->") == len(pages.BLOCK.findall(text)) > 0


def test_the_table_of_attention_has_every_case_and_its_numbers() -> None:
    """Read from the file once more, by hand."""
    items = json.loads((pages.RESULTS / "cuda" / "results.json").read_text(encoding="utf-8"))["attention"]["items"]
    _, _, *lines = pages.cuda_attention(0).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines}
    assert [*cells] == [entry["item"] for entry in items if not entry["item"].startswith("T=")]
    for entry in items:
        if entry["item"] in cells:
            _, forward, _, ratio, _, _, kernel = cells[entry["item"]]
            told = forward.replace(",", "").split(" / ")
            ours = entry["contenders"]["attnlayers"]
            direction = "forward" if entry["item"].startswith("decode") else "both"
            least = min(
                some[direction]["device_us"]
                for name, some in entry["contenders"].items()
                if name.startswith("PyTorch") and "TF32" not in name and direction in some
            )
            assert float(told[0]) == pytest.approx(ours["forward"]["device_us"], rel=0.02)
            assert float(ratio) == pytest.approx(ours[direction]["device_us"] / least, abs=0.006)
            name = "PyTorch" if kernel == "its own choice" else f"PyTorch {kernel}"
            assert entry["contenders"][name][direction]["device_us"] == least


def test_both_languages_show_the_same_numbers() -> None:
    for name in ("cuda-attention", "cuda-training", "host-time"):
        english, japanese = (
            [cell for line in pages.BLOCKS[name](language).splitlines()[2:] for cell in line.split(" | ")[1:]]
            for language in (0, 1)
        )
        assert [cell for cell in english if re.search(r"\d", cell)] == [x for x in japanese if re.search(r"\d", x)]
        assert len(english) == len(japanese) > 5
