"""``python -m cuda_on_cpu ARGUMENTS...``: run Python with these arguments on the fake device."""

import os
import sys

from cuda_on_cpu import environment


def main() -> None:
    try:
        found = environment()
    except RuntimeError as error:
        sys.exit(f"cuda_on_cpu: {error}")
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], found)


if __name__ == "__main__":
    main()
