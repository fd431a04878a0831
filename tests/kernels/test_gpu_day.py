"""The scripts of benchmarks/gpu_day use what is there; running them takes minutes (see the README beside them)."""

import ast
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu_day"


@pytest.mark.parametrize("name", ["checks.py", "times.py", "train.py"])
def test_what_a_script_takes_from_the_package_is_there(name):
    pytest.importorskip("triton")
    tree = ast.parse((FOLDER / name).read_text(encoding="utf-8"))
    taken = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wsss_cli"):
            for alias in node.names:
                taken += 1
                try:
                    importlib.import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    assert hasattr(importlib.import_module(node.module), alias.name), f"{node.module}.{alias.name}"
    assert taken
