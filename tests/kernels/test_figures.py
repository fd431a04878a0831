"""The tables of docs/benchmarks/kernels.md are those of benchmarks/kernel_figures.py and network_figures.py."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_times_that_the_arithmetic_gives():
    pytest.importorskip("triton")
    figures = runpy.run_path(str(ROOT / "benchmarks" / "kernel_figures.py"))
    page = (ROOT / "docs" / "benchmarks" / "kernels.md").read_text(encoding="utf-8")
    for kernel in figures["kernels"]():
        ms, bound = figures["expected"](kernel)
        row = f"| `{kernel.name.lstrip('_')}` | {kernel.what} | {kernel.launches} | {ms:.2f} | {bound} |"
        assert row in page


def test_the_page_has_the_times_of_whole_networks_that_the_arithmetic_gives(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    figures = runpy.run_path(str(ROOT / "benchmarks" / "network_figures.py"))
    page = (ROOT / "docs" / "benchmarks" / "kernels.md").read_text(encoding="utf-8")
    assert "\n".join(figures["table"]()) in page
