"""Memory that is freed serves the next array."""

import os
import platform
import subprocess
import sys

import pytest

ARRAYS = """
import resource, sys
import numpy as np
from wsss_cli.heap import keep_freed
if sys.argv[1:]:
    keep_freed(int(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    [np.ones(size, np.uint8) for size in (600_000, 800_000, 800_000, 2_000_000, 800_000)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*kept, **environment):
    """Pages that a process had to be given for 50 times five arrays."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment
    done = subprocess.run([sys.executable, "-c", ARRAYS, *map(str, kept)], env=env, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_pages_are_fetched_once_and_an_environment_that_decides_is_left_alone():
    apart = faults()
    assert faults(2**26) < apart / 5
    assert faults(2**26, MALLOC_TRIM_THRESHOLD_="0") > apart / 5
