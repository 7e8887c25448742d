"""Run a script of the book: its arguments, its folder, its errors, as Python itself would."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType

from .._terminal import printable
from ._serve import UsageError, is_checkout, serve

USAGE = "usage: python -m attnlayers.book [--keep common.NAME]... SCRIPT [ARGUMENT]..."


def main(arguments: Sequence[str]) -> int:
    """Run the script that the arguments name.

    Returns
    -------
    int
        The exit status, where the script does not end the process itself.
    """
    try:
        keep, name, rest = _parse(arguments)
        script, checkout = _find(name)
        _, warning = serve(checkout, keep)
    except UsageError as error:
        print(f"attnlayers.book: error: {printable(str(error))}", file=sys.stderr)
        return 2
    if warning:
        print(f"attnlayers.book: warning: {printable(warning)}", file=sys.stderr)
    return _execute(script, rest)


def _parse(arguments: Sequence[str]) -> tuple[set[str], str, list[str]]:
    keep: set[str] = set()
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option, _, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(
                f"{USAGE}\n\nATTN_GPU=1 in front of it computes on CUDA. --keep leaves a module as the checkout has it."
            )
            raise SystemExit(0)
        if option != "--keep":
            raise UsageError(f"there is no option {option}; {USAGE}")
        keep.add(value or (rest.pop(0) if rest else ""))
    if not rest:
        raise UsageError(f"name a script of the book's checkout; {USAGE}")
    return keep, rest[0], rest[1:]


def _find(name: str) -> tuple[Path, Path]:
    """The script and the checkout that it belongs to."""
    script = Path(name).resolve()
    if not script.exists():
        raise UsageError(f"{name} does not exist: name a script, such as ch08/train.py")
    if not script.is_file() or script.suffix != ".py":
        raise UsageError(f"{name} is no Python script: name one, such as ch08/train.py")
    checkout = script.parent.parent
    if not is_checkout(checkout):
        raise UsageError(
            f"{name} is not in a checkout of the book's code: its folder must stand beside `common`, "
            f"and {checkout} has no common/np.py"
        )
    return script, checkout


def _execute(script: Path, arguments: list[str]) -> int:
    from ._imports import INT, compiled, forgiving_int

    module = ModuleType("__main__")
    module.__dict__.update({"__file__": str(script), "__builtins__": __builtins__, INT: forgiving_int})
    sys.modules["__main__"] = module
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.parent)
    os.chdir(script.parent)  # the scripts mean files and `..` from there
    try:
        exec(compiled(script.read_bytes(), str(script)), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _show(error: BaseException) -> None:
    """Print the traceback as Python does, from the script's own first line on."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)
