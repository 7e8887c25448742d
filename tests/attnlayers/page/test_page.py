"""The page as a file: what it holds is what was given, and what cannot be shown is one line."""

import base64
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Library

import attnlayers
from attnlayers.page import Page, page, view


def data_of(shown: Page) -> dict[str, Any]:
    """The data of a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', str(shown), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def attentions(shown: Page) -> list[dict[str, Any]]:
    return [one for text in data_of(shown)["texts"] for one in text["attentions"]]


def weights_of(one: dict[str, Any]) -> np.ndarray:
    """The weights (layers, heads, T_q, T_k) that a page holds; what is left out is NaN."""
    shape = one["layers"], one["heads"], len(one["queries"]), one["kept"] or len(one["keys"])
    values = np.frombuffer(base64.b64decode(one["values"]), "<f4").reshape(shape)
    if not one["kept"]:
        return values
    places = np.frombuffer(base64.b64decode(one["places"]), "<u4" if one["wide"] else "<u2").reshape(shape)
    out = np.full((*shape[:3], len(one["keys"])), np.nan, np.float32)
    np.put_along_axis(out, places.astype(np.int64), values, axis=-1)
    return out


def tokens(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    axes=st.integers(2, 4),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_a_page_holds_the_weights(shape: tuple[int, ...], axes: int, dtype: str, seed: int) -> None:
    w = np.random.default_rng(seed).random(shape[-axes:])
    w = (w / w.sum(axis=-1, keepdims=True)).astype(dtype)
    (one,) = attentions(view(w, tokens("k", shape[3]), tokens("q", shape[2])))
    np.testing.assert_array_equal(weights_of(one), w.astype(np.float32).reshape((1,) * (4 - axes) + w.shape))
    assert one["keys"] == tokens("k", shape[3])
    assert one["queries"] == tokens("q", shape[2])


@settings(max_examples=50, deadline=None)
@given(text=st.lists(st.text(), min_size=1, max_size=5), title=st.text())
def test_any_text_comes_back_and_ends_no_script(text: list[str], title: str) -> None:
    w = np.full((len(text), len(text)), 1 / len(text))
    shown = view(w, text, title=title)
    cut = [token if len(token) <= 100 else token[:99] + "…" for token in text]
    assert data_of(shown)["title"] == title
    assert attentions(shown)[0]["keys"] == cut
    assert str(shown).count("<script") == str(shown).count("</script") == 2


def test_html_in_tokens_and_title_is_text() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    shown = view([[1.0]], [evil], title=evil)
    assert "<img" not in str(shown)
    assert attentions(shown)[0]["keys"] == [evil]
    assert "<img" not in shown._repr_html_()


def test_no_address_is_in_a_page(softmaxed: Any) -> None:
    text = str(view(softmaxed(3, 3), "abc"))
    assert not re.search(r"https?:|//\w|@import|url\(", text.replace("// ", ""))
    assert "default-src 'none'" in text


def test_arrays_of_every_library(library: Library, softmaxed: Any) -> None:
    w = softmaxed(2, 3, 5)
    (one,) = attentions(view(library.array(w, "float32"), tokens("k", 5), tokens("q", 3)))
    np.testing.assert_array_equal(weights_of(one)[0], w)


def test_several_attentions_by_name(softmaxed: Any) -> None:
    own = {"self": (softmaxed(2, 4, 4), "abcd"), "cross": (softmaxed(3, 4), list("abcd"), ["x", "y", "z"])}
    first, second = attentions(view(own))
    assert (first["name"], first["queries"]) == ("self", list("abcd"))
    assert (second["name"], second["queries"], second["keys"]) == ("cross", ["x", "y", "z"], list("abcd"))
    same = attentions(view({"a": softmaxed(3, 4), "b": softmaxed(2, 3, 4)}, "abcd", "xyz"))
    assert [one["heads"] for one in same] == [1, 2]


@pytest.mark.parametrize(("shape", "wide"), [((2, 3, 300, 1100), False), ((1, 1, 30, 70_000), True)])
def test_many_weights_are_thinned_to_the_largest(shape: tuple[int, ...], wide: bool, softmaxed: Any) -> None:
    w = softmaxed(*shape)
    shown = view(w, tokens("k", shape[3]), tokens("q", shape[2]))
    size = len(str(shown).encode())
    assert 0.8 * page.LARGEST < size <= page.LARGEST
    (one,) = attentions(shown)
    assert one["wide"] == wide
    held = weights_of(one)
    there = ~np.isnan(held)
    np.testing.assert_array_equal(held[there], w[there])
    kept = np.sort(np.where(there, held, 0), axis=-1)[..., -one["kept"] :]
    np.testing.assert_array_equal(kept, np.sort(w, axis=-1)[..., -one["kept"] :])


def test_ten_thousand_tokens(softmaxed: Any) -> None:
    w = np.eye(10_000, dtype=np.float32)
    shown = view(w, tokens("t", 10_000))
    assert len(str(shown).encode()) <= page.LARGEST
    held = weights_of(attentions(shown)[0])[0, 0]
    np.testing.assert_array_equal(np.diagonal(held), 1)


def test_several_attentions_share_the_room(softmaxed: Any) -> None:
    few, many = softmaxed(4, 4), softmaxed(4, 700, 700)
    shown = view({"few": (few, "abcd"), "many": (many, tokens("t", 700))})
    first, second = attentions(shown)
    assert first["kept"] is None
    assert second["kept"] > 100
    assert len(str(shown).encode()) <= page.LARGEST


def test_weights_that_fit_no_page_are_one_line() -> None:
    with pytest.raises(ValueError, match="must fit a page of 5 MB with their tokens, got more than that even with one"):
        view(np.broadcast_to(np.float32(0.25), (64, 64, 200, 4)), "abcd", tokens("q", 200))


@pytest.mark.parametrize(
    ("weights", "source", "target", "message"),
    [
        ([[0.5, -0.5]], "ab", "x", r"must be probabilities, from 0 to 1, got -0.5 at .* = \(0, 0, 0, 1\): give what"),
        ([[0.5, np.nan]], "ab", "x", "must be probabilities, from 0 to 1, got nan"),
        ([[3.0, 1.0]], "ab", "x", "must be probabilities, from 0 to 1, got 3"),
        ([[0.5, 0.5]], "abc", "x", "`source` must have 2 tokens, as many as `weights` has keys, got 3"),
        ([[0.5, 0.5]], "ab", "xy", "`target` must have 1 tokens, as many as `weights` has queries, got 2"),
        ([[0.5, 0.5]], "ab", None, "`target` must be given where queries and keys are not the same tokens"),
        ([0.5, 0.5], "ab", None, r"must have shape \(T_q, T_k\), .*, got \(2,\)"),
        (np.zeros((1, 1, 1, 1, 1)), "a", None, r"got \(1, 1, 1, 1, 1\): take one entry of the batch, as in weights"),
        (np.zeros((0, 0)), "", None, "must not be empty"),
        ([[0.5], [0.5, 0.5]], "ab", None, "lists of equal length"),
        ("weights", "ab", None, "must be an array of numbers, got str"),
        (np.array([["a"]]), "a", None, "must be an array of numbers, got dtype <U1"),
        ([[1.0]], 7, None, "`source` must be a list of tokens, got int"),
        ([[1.0]], [b"a"], None, "`source` must hold tokens as text, got bytes"),
        ([[1.0]], None, None, "`source` must be a list of tokens, got none"),
        ({}, None, None, "must hold one array or more"),
        ({"cross": [[1.0, 0.0]]}, "a", "x", "cross: `source` must have 2 tokens"),
    ],
)
def test_what_cannot_be_shown_is_one_line(weights: Any, source: Any, target: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as error:
        view(weights, source, target)
    assert "\n" not in str(error.value)


def test_rows_that_do_not_sum_to_1_are_noted(softmaxed: Any) -> None:
    w = softmaxed(3, 4)
    (one,) = attentions(view(w / 2, "abcd", "xyz"))
    assert one["note"] == "Weights of a token sum to 1 elsewhere; here from 0.5 to 0.5."
    w[1] = 0  # a query that sees nothing
    assert attentions(view(w, "abcd", "xyz"))[0]["note"] == ""


def test_a_page_is_saved_whole_and_shown_by_a_notebook(tmp_path: Path, softmaxed: Any) -> None:
    shown = attnlayers.view(softmaxed(3, 3), "日本語")
    path = tmp_path / "a.html"
    shown.save(path)
    assert path.read_text(encoding="utf-8") == str(shown)
    framed = shown._repr_html_()
    assert framed.startswith('<iframe sandbox="allow-scripts"')
    assert unescape(framed.partition('srcdoc="')[2].removesuffix('"></iframe>')) == str(shown)
    assert repr(shown).startswith("Page('Attention', ")
