"""``python tests/cuda_on_cpu/run.py ARGUMENTS...``: run Python with these arguments on the fake device."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # In the place of this script's own folder, whose modules are those of the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from cuda_on_cpu.__main__ import main

    main()
