"""``python -m attnlayers.book SCRIPT [arguments]``: a script of the book's checkout, on this library."""

import sys

from ._run import main

sys.exit(main(sys.argv[1:]))
