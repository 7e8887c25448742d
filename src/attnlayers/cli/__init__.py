"""The command `attnlayers`. What it does lives elsewhere; here are its arguments, its screen and its errors."""

import io
import os
import sys
import traceback
import warnings
from typing import Any

from .._terminal import printable

EXTRA = ("click", "matplotlib", "rich", "sacrebleu", "safetensors", "tokenizers", "typer")
"""What the extra ``train`` installs."""


def main() -> None:
    """Run the command line: every error is one line, unless ``--debug`` asks for its traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console without Unicode shows escapes
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    try:
        from .app import app

        code = app(arguments, prog_name="attnlayers", standalone_mode=False)
    except Exception as error:
        raise SystemExit(report(error) if _tells() else getattr(error, "exit_code", 1)) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _tells() -> bool:
    """Whether this process tells what is wrong before it has joined others: one does for all on a host."""
    from ..distributed._launch import launched  # not at the top: with it comes NumPy

    started = launched(os.environ)
    return started is None or started.local_rank == 0


def _show_warning(message: Warning | str, *where: Any, **further: Any) -> None:
    print(f"attnlayers: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def report(error: BaseException, where: str = "") -> int:
    """Tell an error, after the words that say where it was met, and return the exit status."""
    message = _one_line(error)
    if "--debug" in sys.argv or message is None:
        traceback.print_exception(error)
    else:
        print(f"attnlayers: error: {where}{printable(message)}", file=sys.stderr)
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)


def _one_line(error: BaseException) -> str | None:
    """What to say of an error, or None where only its traceback says it."""
    kind = type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA:
        return (
            "the command line needs typer, rich, matplotlib, safetensors, sacrebleu and tokenizers, and "
            f"{error.name} is missing: pip install 'attnlayers[train]'"
        )
    if kind in ("Abort", "KeyboardInterrupt"):
        return "interrupted; --resume goes on from the last checkpoint"
    if hasattr(error, "format_message"):  # typer's, of the words of the line
        return f"{' '.join(error.format_message().split())} (--help lists what there is)"
    if isinstance(error, MemoryError):
        what = " ".join(str(error).split())
        return (
            f"there is not enough memory{f' ({what})' if what else ''}: a smaller --batch-size, --max-length, "
            "--vocab-size or --hidden-size needs less"
        )
    told = ("BackendError", "DataError", "FileError", "RanksError", "RunError", "WeightsError")
    if isinstance(error, OSError) or kind in told:
        return " ".join(str(error).split())
    return None
