"""From the environment to a choice, without an environment: every documented value and every error."""

import re

import pytest

from attnbackends import BackendError
from attnbackends._select import Selection, select, select_threads

OFF = ("0", "false", "no", "off")
ON = ("1", "true", "yes", "on")


def cases(words: tuple[str, ...]) -> list[str]:
    """Each word as it is, in upper case, in mixed case and between spaces."""
    return sorted({form for word in words for form in (word, word.upper(), word.title(), f" {word}\t")})


@pytest.mark.parametrize("environ", [{}, {"ATTN_GPU": ""}, {"ATTN_GPU": "  "}, {"ATTN_BACKEND": ""}, {"HOME": "1"}])
def test_nothing_set_is_numpy(environ: dict[str, str]) -> None:
    assert select(environ) == Selection(("numpy",), "ATTN_GPU is not set")


@pytest.mark.parametrize("value", cases(OFF))
def test_off_is_numpy(value: str) -> None:
    assert select({"ATTN_GPU": value}) == Selection(("numpy",), f"ATTN_GPU={value.strip().lower()}")


@pytest.mark.parametrize("value", cases(ON))
def test_on_is_cupy_and_nothing_else(value: str) -> None:
    assert select({"ATTN_GPU": value}) == Selection(("cupy",), f"ATTN_GPU={value.strip().lower()}")


@pytest.mark.parametrize("value", cases(("auto",)))
def test_auto_tries_cupy_first(value: str) -> None:
    assert select({"ATTN_GPU": value}) == Selection(("cupy", "numpy"), "ATTN_GPU=auto")


@pytest.mark.parametrize("value", ["maybe", "2", "-1", "cuda", "cupy", "none", "True!", "0 1"])
def test_any_other_value_is_refused_with_those_allowed(value: str) -> None:
    expected = (
        f"ATTN_GPU must be one of 1, true, yes, on (CuPy), 0, false, no, off or unset (NumPy), or auto, got {value!r}"
    )
    with pytest.raises(BackendError, match=f"^{re.escape(expected)}$"):
        select({"ATTN_GPU": value})


@pytest.mark.parametrize("name", ["numpy", "cupy", "torch", "a_plugin"])
@pytest.mark.parametrize("gpu", [{}, {"ATTN_GPU": ""}])
def test_a_name_alone_decides(name: str, gpu: dict[str, str]) -> None:
    assert select({"ATTN_BACKEND": f" {name} "} | gpu) == Selection((name,), f"ATTN_BACKEND={name}")


@pytest.mark.parametrize(
    ("gpu", "name"),
    [("1", "cupy"), ("ON", "cupy"), ("0", "numpy"), ("off", "numpy"), ("auto", "cupy"), ("auto", "numpy")],
)
def test_two_settings_may_agree(gpu: str, name: str) -> None:
    assert select({"ATTN_GPU": gpu, "ATTN_BACKEND": name}) == Selection((name,), f"ATTN_BACKEND={name}")


@pytest.mark.parametrize(
    ("gpu", "name", "asked"),
    [
        ("1", "numpy", "cupy"),
        ("yes", "torch", "cupy"),
        ("0", "cupy", "numpy"),
        ("Off", "torch", "numpy"),
        ("auto", "torch", "cupy or numpy"),
    ],
)
def test_two_settings_that_disagree_are_refused(gpu: str, name: str, asked: str) -> None:
    expected = f"ATTN_GPU={gpu.lower()} asks for {asked} and ATTN_BACKEND={name} for {name}: unset one of the two"
    with pytest.raises(BackendError, match=f"^{re.escape(expected)}$"):
        select({"ATTN_GPU": gpu, "ATTN_BACKEND": name})


def test_a_bad_value_is_refused_even_beside_a_name() -> None:
    with pytest.raises(BackendError, match=r"^ATTN_GPU must be one of .* got 'maybe'$"):
        select({"ATTN_GPU": "maybe", "ATTN_BACKEND": "numpy"})


def test_the_choice_is_a_function_of_the_mapping_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_GPU", "1")
    monkeypatch.setenv("ATTN_THREADS", "5")
    assert select({}).candidates == ("numpy",)
    assert select_threads({}) is None


@pytest.mark.parametrize(("value", "count"), [("", None), ("  ", None), ("1", 1), (" 8 ", 8), ("007", 7), ("100", 100)])
def test_threads(value: str, count: int | None) -> None:
    assert select_threads({"ATTN_THREADS": value}) == count


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1e1", "+2", "²", "auto", "1 2"])
def test_threads_must_be_a_positive_integer(value: str) -> None:
    expected = f"ATTN_THREADS must be a positive integer or unset, got {value!r}"
    with pytest.raises(BackendError, match=f"^{re.escape(expected)}$"):
        select_threads({"ATTN_THREADS": value})
