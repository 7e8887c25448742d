"""The command `attnlayers`. What it does lives elsewhere; here are its arguments, its screen and its errors."""

import sys

COMMAND_LINE = "the command line needs typer, rich, matplotlib and safetensors: pip install 'attnlayers[train]'"


def main() -> None:
    """Run the command line: every error is one line, unless ``--debug`` asks for its traceback."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        try:
            from .app import app
        except ModuleNotFoundError as error:
            if error.name not in ("typer", "rich", "click"):
                raise
            raise SystemExit(f"attnlayers: error: {COMMAND_LINE}") from error
        app(arguments, prog_name="attnlayers")
    except Exception as error:
        if debug or not _expected(error):
            raise
        message = " ".join(str(error).split())
        raise SystemExit(f"attnlayers: error: {message}") from None


def _expected(error: Exception) -> bool:
    """Whether the message says it all: errors of this library's own, and of the files it was given."""
    own = {"BackendError", "DataError", "RunError"}
    return isinstance(error, OSError) or type(error).__name__ in own
