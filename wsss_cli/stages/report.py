"""One page about a run, or about several beside each other: what it scored, what it was made from, what it looks like.

The page is a file that needs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsss_cli.engine.context import Context
from wsss_cli.engine.records import read_record
from wsss_cli.errors import Interrupted, Preempted
from wsss_cli.files import refuse_unwritable, write_text
from wsss_cli.report.charts import bars, matrix, percent
from wsss_cli.report.html import Html, join, node, page, table
from wsss_cli.stages.compare import INTERVAL, SCORES, gaps, score_rows, tell_all
from wsss_cli.stages.gallery import Shown, gallery
from wsss_cli.stages.lineage import Told, changed_settings
from wsss_cli.stages.provenance import commands_section, curves_section, lineage_section, time_section


def write_report(runs: Sequence[Path], out: Path, ctx: Context, *, photographs: int = 6) -> list[Told]:
    """Write the page of runs.

    Args:
        runs: directories of any stage; of several the first is what the others are compared with.
        out: the file.
        photographs: examples of each kind; of a training they are predicted again.
    Returns:
        What is told in it.
    Raises:
        UsageError: no run directory, runs of different stages, or `out` is a folder.
        WriteError: the page cannot be written; seen before the work.
    """
    for run in runs:
        read_record(run)
    refuse_unwritable(out, "--out FILE.html writes it elsewhere")
    told = tell_all(runs)
    parts = [_heading(told), *_sections(told, ctx, photographs)]
    title = " and ".join(one.name for one in told) if len(told) < 3 else f"{len(told)} runs"
    write_text(out, page(f"wsss: {title}", parts))
    return told


def leave_report(run: Path, ctx: Context) -> None:
    """Write report.html into a run that is done; where that fails it is said, and the run is done all the same."""
    try:
        write_report([run], run / "report.html", ctx, photographs=3)
    except (Preempted, Interrupted):
        raise
    except Exception as error:  # a page that cannot be drawn is never worth a run
        ctx.ui.say(f"no report of {run}: {' '.join(str(error).split())[:200]}")


def _shown(told: Sequence[Told]) -> list[Shown]:
    return [Shown(one.name, one.links, one.dataset, one.areas()) for one in told if one.dataset is not None]


def _sections(told: Sequence[Told], ctx: Context, photographs: int) -> list[Html]:
    builders: list[tuple[str, str, Callable[[], Html | None]]] = [
        ("scores", "Scores", lambda: _scores(told)),
        ("difference", "Difference", lambda: _differences(told, ctx)),
        ("classes", "IoU by class", lambda: _classes(told)),
        ("lineage", "Where it comes from", lambda: lineage_section(told)),
        ("curves", "Curves", lambda: curves_section(told)),
        ("confusion", "Confusion", lambda: _confusions(told)),
        ("examples", "Photographs", lambda: gallery(_shown(told), ctx, photographs)),
        ("time", "Time and memory", lambda: time_section(told)),
        ("commands", "Commands", lambda: commands_section(told)),
    ]
    parts, links = [], []
    for key, heading, build in builders:
        ctx.stop.check()
        content = build()
        if content is not None:
            links.append(node("a", heading, href=f"#{key}"))
            parts.append(node("section", node("h2", heading, id=key), content))
    return [node("nav", *links, aria_label="sections"), *parts]


def _heading(told: Sequence[Told]) -> Html:
    first = told[0]
    parts: list[object] = [node("h1", " / ".join(one.name for one in told))]
    for one in told:
        if len(told) > 1:
            parts.append(node("h3", one.name))
        preset = one.last.preset
        data = one.last.inputs.dataset_name or Path(one.last.inputs.dataset).name if one.last.inputs else ""
        facts = [f"stage {one.last.stage}", f"data {data}", f"preset {preset.name if preset else '-'}", one.last.state]
        if one.last.stage == "train" and preset:
            facts.insert(1, f"{preset.train.supervision} supervision")
        if one.last.inputs and one.last.inputs.teacher:
            facts.insert(1, f"teacher: {one.last.inputs.teacher}")
        parts.append(node("p", " · ".join(facts), class_="soft"))
        if one.last.state != "done":
            parts.append(node("p", f"This run is not finished ({one.last.state}).", class_="warn"))
        if one.last.record and one.last.record.lost:
            lost = one.last.record.lost
            listed = table(("photograph", "reason"), [(item["id"], item["reason"]) for item in lost[:50]], left=2)
            more = f"{len(lost)} photograph{' was' if len(lost) == 1 else 's were'} lost" + (
                " (the first 50 are listed)" if len(lost) > 50 else ""
            )
            parts.append(node("div", more, node("details", node("summary", "which"), listed), class_="warn"))
    if len(told) == 1 and first.modes:
        cards = [
            node(
                "div",
                node("b", percent(first.last.scores[key].get("miou"))),
                node("span", f"mIoU, {name}"),
                class_="card",
            )
            for key, name in first.modes
        ]
        parts.append(node("div", *cards, class_="cards"))
    return join(parts)


def _scores(told: Sequence[Told]) -> Html:
    damaged = [
        node("p", f"Scores left out: {one.last.why_no_scores}", class_="warn") for one in told if one.last.why_no_scores
    ]
    if damaged and not any(one.modes for one in told):
        return join(damaged)
    if not any(one.modes for one in told):
        hint = (
            "wsss eval RUN --ms-flip scores it where the val split has masks" if told[0].last.stage == "train" else ""
        )
        return node("p", "No scores: nothing was compared with true masks. ", node("code", hint) if hint else None)
    protocols = []
    for one in told:
        lines = one.last.scores.get("protocol") or []
        lines = [lines] if isinstance(lines, str) else lines
        protocols += [node("p", f"{one.name}: " if len(told) > 1 else "", line, class_="soft") for line in lines]
    return join((*damaged, table(SCORES, score_rows(told), left=2), *protocols))


def _differences(told: Sequence[Told], ctx: Context) -> Html | None:
    if len(told) < 2:
        return None
    rows, notes = [], []
    for gap in gaps(told, ctx.stop.check):
        rows.append((f"{gap.run} - {gap.first}", *gap.cells))
    notes.append(INTERVAL)
    settings = []
    for one in told[1:]:
        lines = changed_settings(told[0].last, one.last)
        listed = node("pre", "\n".join(lines)) if lines else node("p", "none", class_="soft")
        settings += [node("h3", f"Settings: {told[0].name} → {one.name}"), listed]
    return join(
        (
            table(("", "mIoU", "95 % interval", "photographs"), rows),
            *(node("p", n, class_="soft") for n in notes),
            *settings,
        )
    )


def _classes(told: Sequence[Told]) -> Html | None:
    scored = [one for one in told if one.top.get("iou")]
    if not scored:
        return None
    names = scored[0].top["classes"]
    series = {
        (one.name if len(told) > 1 else one.modes[0][1]): one.top["iou"]
        for one in scored
        if one.top["classes"] == names
    }
    return bars(names, series, "IoU by class, per cent")


def _confusions(told: Sequence[Told]) -> Html | None:
    parts = []
    for one in told:
        if one.top.get("confusion"):
            if len(told) > 1:
                parts.append(node("h3", one.name))
            parts.append(matrix(np.array(one.top["confusion"]), one.top["classes"]))
    note = node(
        "p", "Rows: what the truth is, in per cent of its pixels; columns: what it was taken for.", class_="soft"
    )
    return join((note, *parts)) if parts else None
