"""A data set and its runs, for what is told and shown of runs."""

import pytest
import torch
from toy_runs import blue, make_home

from wsss_cli.engine.context import Context


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data set, and the runs cam <- pseudo <- train of two seeds, as their stages leave them."""
    folder = tmp_path_factory.mktemp("home")
    make_home(folder)
    return folder


@pytest.fixture
def ctx(tmp_path, monkeypatch):
    blue(monkeypatch)
    return Context(torch.device("cpu"), tmp_path)
