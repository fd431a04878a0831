"""Kernels run natively where there is a GPU, and elsewhere in Triton's interpreter (set one folder up)."""

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    pytest.importorskip("triton")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
