"""Memory of the process, where the C library's own rules cost more than they save."""

import ctypes
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next array, instead of giving it back to the system.

    A fact of the whole process, for a program to decide: a library does not. glibc gives freed memory back by rules
    that depend on what was allocated before, and fresh pages then cost a training step of NumPy arrays up to a third of
    its time (benchmarks/NOTES.md). The process keeps the most memory that it ever used. Where the C library is another
    one, nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library of the process
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its largest
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
