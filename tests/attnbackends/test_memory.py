"""Freed memory that the process keeps, by the page faults of a process of its own."""

import platform

import pytest
from support import output_of

FAULTS = """
import resource
import numpy as np
from attnbackends import keep_freed_memory

{call}

def work():
    arrays = [np.ones(30 * 2**17) for _ in range(3)]  # 30 MiB each: together more than glibc keeps by itself

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    work()
before = faults()
work()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the rules of glibc")
def test_arrays_meet_the_memory_of_those_before_them() -> None:
    without, kept = (int(output_of(FAULTS.format(call=call))) for call in ("", "keep_freed_memory()"))
    assert kept < 100 < without
