"""Before any test module: where there is no GPU, Triton's kernels run in its interpreter, on CPU tensors.

Triton reads the variable once, when it is first imported, and some libraries that other tests need import
it; a conftest further down would come too late for them.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads of processes that share cores wait for each other

import signal
from functools import partial
from pathlib import Path

import command
import numpy as np
import pytest
import torch

from wsss_cli import processes

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

os.fsync = lambda file: None  # no test cuts the power, and a disk takes milliseconds for each file

for number in (signal.SIGHUP, signal.SIGINT):  # ignored under nohup and in background jobs; commands that tests start
    if signal.getsignal(number) is signal.SIG_IGN:  # would inherit that
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


LONG = (
    "ranks",
    "cli/test_commands.py",
    "cluster",
    "faults",
    "test_every_block.py",
    "test_docs_commands.py",
    "test_extend.py",
    "cli",
    "interchange",
)  # first, so that no process waits last


def pytest_collection_modifyitems(items):
    names = [str(Path(item.path).relative_to(Path(__file__).parent)) for item in items]
    turn = [next((n for n, begin in enumerate(LONG) if name.startswith(begin)), len(LONG)) for name in names]
    items[:] = [items[place] for place in sorted(range(len(items)), key=turn.__getitem__)]
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def wsss(tmp_path):
    """Runs a command in the test's folder: `wsss("presets", "list")`."""
    return partial(command.wsss, tmp_path)


@pytest.fixture(scope="session")
def golden():
    """Inputs and frozen results of plain references; tests/golden/make_methods.py wrote them."""
    with np.load(Path(__file__).parent / "golden" / "methods.npz", allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture
def processes_at_once(monkeypatch):
    """Light work goes to processes after its first item, however little there is."""
    monkeypatch.setattr(processes, "TRY_SECONDS", 0.0)
    monkeypatch.setattr(processes, "PAY_SECONDS", -1.0)
