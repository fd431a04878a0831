"""Benchmarks as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss_cli.report.tables import Table

HEADS = {  # key of a row: (head, format)
    "ms": ("ms", ",.2f"),
    "ms_min": ("min", ",.2f"),
    "ms_max": ("max", ",.2f"),
    "images_s": ("images/s", ",.2f"),
    "it_s": ("it/s", ",.3f"),
    "batches_s": ("batches/s", ",.2f"),
    "ratio": ("ratio", ".2f"),
    "part": ("part", ".0%"),
    "share": ("share", ".1%"),
    "memory_mib": ("MiB", ",.0f"),
    "same_as_lattice": ("same as lattice", ".2%"),
    "same_as_exact": ("same as exact", ".2%"),
    "same_as_one_view": ("same labels", ".2%"),
    "max_difference": ("max difference", ".1e"),
    "loss_first": ("first loss", ".4f"),
    "loss_last": ("last loss", ".4f"),
}
CEILINGS = {
    "copy_gb_s": "copy {:,.1f} GB/s",
    "fp32_gflop_s": "fp32 {:,.0f} GFLOP/s",
    "bf16_gflop_s": "bf16 {:,.0f} GFLOP/s",
}


def bench_table(result: Mapping[str, Any]) -> Table:
    """Rows, with the reason where a row has no figures; device, ceilings, settings and notes below.

    Args:
        result: what `stages.bench_measure.report` returns.
    """
    keys = [key for key in HEADS if any(row.get(key) is not None for row in result["rows"])]
    reasons = any("reason" in row for row in result["rows"])
    rows = []
    for row in result["rows"]:
        cells = [_cell(row.get(key), HEADS[key][1]) for key in keys]
        rows.append((row["name"], *cells, *([row.get("reason", "")] if reasons else [])))
    columns = ("", *(HEADS[key][0] for key in keys), *([""] if reasons else []))
    left = frozenset({0, len(columns) - 1}) if reasons else frozenset({0})
    return Table(f"bench {result['bench']}, {result['device']}", columns, tuple(rows), notes=_notes(result), left=left)


def flops_table(result: Mapping[str, Any]) -> Table:
    """Parameters and multiply-adds of modules, and of all.

    Args:
        result: what `bench.flops.bench_flops` returns.
    """
    parameters, operations = result["parameters"], result["multiply_adds"]
    rows = [
        (
            row["name"],
            row["type"],
            f"{row['parameters']:,}",
            _share(row["parameters"], parameters),
            f"{row['multiply_adds'] / 1e9:,.3f}",
            _share(row["multiply_adds"], operations),
        )
        for row in result["modules"]
    ]
    idle = [row["name"] for row in result["modules"] if "." not in row["name"] and not row["multiply_adds"]]
    return Table(
        f"{result['preset']}, {result['num_classes']} classes, {result['width']}x{result['height']}",
        ("", "type", "parameters", "", "GMAC", ""),
        tuple(rows),
        ("all", "", f"{parameters:,}", "", f"{operations / 1e9:,.3f}", ""),
        (
            f"GMAC: 10^9 multiply-adds, each of which is two FLOPs (all: {result['flops'] / 1e9:,.1f} GFLOPs)",
            f"counted: {result['counted']}",
            *(f"{name}: used in training alone" for name in idle),
        ),
        frozenset({0, 1}),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _notes(result: Mapping[str, Any]) -> tuple[str, ...]:
    packages = ", ".join(f"{name} {version or 'not installed'}" for name, version in result["versions"].items())
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in result["settings"].items() if value != "")
    best = [CEILINGS[key].format(value) for key, value in result["ceilings"].items() if value]
    return (
        f"{result['cpu']}; {packages}; {result['date']}",
        f"{settings}",
        *([f"at its best, in this run: {', '.join(best)}"] if best else []),
        *([f"ratio: times as fast as {result['ratio_to']}"] if result["ratio_to"] else []),
        "ms: median of the turns, all rows in turn, after a warm-up",
        *result["notes"],
    )


def _setting(value: Any) -> str:
    return "/".join(f"{one:g}" for one in value) if isinstance(value, list) else str(value)
