"""From the environment to a choice: pure functions of a mapping."""

from collections.abc import Mapping
from typing import NamedTuple

from ._errors import BackendError

_OFF = ("", "0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")


class Selection(NamedTuple):
    """What the environment asks for.

    Attributes
    ----------
    candidates : tuple of str
        Names of backends, in the order in which they are tried.
    reason : str
        The setting that led to them, for messages.
    """

    candidates: tuple[str, ...]
    reason: str


def select(environ: Mapping[str, str]) -> Selection:
    """Read ``ATTN_GPU`` and ``ATTN_BACKEND``.

    Parameters
    ----------
    environ : mapping of str to str
        Usually ``os.environ``.

    Returns
    -------
    Selection

    Raises
    ------
    BackendError
        For a value of ``ATTN_GPU`` that is none of the known ones, or two settings that disagree.
    """
    gpu = environ.get("ATTN_GPU", "").strip().lower()
    name = environ.get("ATTN_BACKEND", "").strip()
    if gpu in _OFF:
        by_gpu: tuple[str, ...] = ("numpy",)
    elif gpu in _ON:
        by_gpu = ("cupy",)
    elif gpu == "auto":
        by_gpu = ("cupy", "numpy")
    else:
        raise BackendError(
            f"ATTN_GPU must be one of {', '.join(_ON)} (CuPy), {', '.join(_OFF[1:])} or unset (NumPy), "
            f"or auto, got {environ['ATTN_GPU']!r}"
        )
    by_gpu_reason = f"ATTN_GPU={gpu}" if gpu else "ATTN_GPU is not set"
    if not name:
        return Selection(by_gpu, by_gpu_reason)
    if gpu and name not in by_gpu:
        raise BackendError(
            f"ATTN_GPU={gpu} asks for {' or '.join(by_gpu)} and ATTN_BACKEND={name} for {name}: unset one of the two"
        )
    return Selection((name,), f"ATTN_BACKEND={name}")


def select_threads(environ: Mapping[str, str]) -> int | None:
    """Read ``ATTN_THREADS``: the number of CPU workers, or None where it is left to the library.

    Raises
    ------
    BackendError
        For anything but a positive integer.
    """
    text = environ.get("ATTN_THREADS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise BackendError(f"ATTN_THREADS must be a positive integer or unset, got {text!r}")
    return int(text)
