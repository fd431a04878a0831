"""Of a report: what runs were made from, how their trainings went, how long all took, and with which commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsss_cli.report.charts import Line, bars, chart, percent
from wsss_cli.report.html import Html, join, node, table
from wsss_cli.stages.lineage import MODES, Link, Told, changed_settings, find_stage


def lineage_section(told: Sequence[Told]) -> Html:
    """A box for the data and for each run, and where the settings of earlier runs differ."""
    parts: list[Html] = []
    for one in told:
        if len(told) > 1:
            parts.append(node("h3", one.name))
        boxes = [_data_box(one)]
        for link in one.links:
            boxes.append(_link_box(link))
        parts.append(node("div", *boxes, class_="chain"))
        for link in one.links[:-1]:
            if lines := changed_settings(link, one.last):
                heading = node("summary", f"settings of {link.path.name} → {one.last.path.name}")
                parts.append(node("details", heading, node("pre", "\n".join(lines))))
    return join(parts)


def _data_box(one: Told) -> Html:
    if one.dataset is None:
        return node("div", node("b", "data"), one.why_no_data, class_="link gone")
    return node(
        "div",
        node("b", "data"),
        node("code", one.dataset.name),
        node("br"),
        f"{one.dataset.num_classes} classes with background",
        *(join((node("br"), line)) for line in one.dataset.protocol),
        class_="link",
    )


def _link_box(link: Link) -> Html:
    if link.why_gone or link.record is None:
        return node(
            "div", node("b", link.stage), node("code", link.path.name), node("br"), link.why_gone, class_="link gone"
        )
    score = next(
        (
            link.scores[key].get("miou")
            for key, _ in MODES.get(link.stage, ())
            if isinstance(link.scores.get(key), dict)
        ),
        None,
    )
    lines = [link.state, _duration(link.seconds)]
    if score is not None:
        lines.append(f"mIoU {percent(score)}")
    return node("div", node("b", link.stage), node("code", link.path.name), node("br"), ", ".join(lines), class_="link")


def curves_section(told: Sequence[Told]) -> Html | None:
    """Losses, validations and the threshold curve of the CAMs; None: nothing was logged."""
    parts: list[Html] = []
    losses: dict[str, list[Line]] = {}
    validation: list[Line] = []
    for one in told:
        label = f"{one.name}" if len(told) > 1 else ""
        for link in one.links:
            rows = [row for row in link.metrics if row.get("kind") == "train" and "loss" in row]
            if rows:
                line = Line(label or link.stage, [row["step"] for row in rows], [row["loss"] for row in rows])
                losses.setdefault(link.stage, []).append(line)
            scored = [row for row in link.metrics if row.get("kind") == "val"]
            if scored and link is one.last:
                name = label or "validation"
                validation.append(Line(name, [row["step"] for row in scored], [row.get("miou") for row in scored]))
        cam = find_stage(list(one.links), "cam")
        if cam is not None and cam.scores.get("thresholds"):
            parts.append(_threshold_curve(cam.scores, label))
    parts += [chart(lines, f"loss, {stage}", "iteration", "loss") for stage, lines in losses.items()]
    if validation:
        parts.append(chart(validation, "validation while training", "iteration", "mIoU, per cent"))
    return join(parts) if parts else None


def _threshold_curve(curve: dict[str, Any], label: str) -> Html:
    lines = [
        Line(name, curve["thresholds"], curve[key]) for key, name in (("miou", "mIoU"), ("fp", "FP"), ("fn", "FN"))
    ]
    best = curve["best"].get("miou")
    mark = (curve["best_threshold"], best, f"{best:.2f} at {curve['best_threshold']:.2f}") if best is not None else None
    title = f"CAMs against the background threshold{f', {label}' if label else ''}"
    return chart(lines, title, "background threshold", "per cent", mark)


def time_section(told: Sequence[Told]) -> Html:
    """Time and memory of each stage."""
    parts: list[Html] = []
    for one in told:
        links = [link for link in one.links if link.record is not None]
        known = [link for link in links if link.seconds is not None]
        rows = [
            (
                link.stage,
                _duration(link.seconds),
                "-" if link.memory_gib is None else f"{link.memory_gib:.1f} GiB",
                (link.record.device if link.record else None) or "-",
                f"{len(link.record.attempts) if link.record else 0}",
            )
            for link in links
        ]
        if len(told) > 1:
            parts.append(node("h3", one.name))
        columns = ("stage", "time", "GPU memory", "device", "attempts")
        if not known:
            parts.append(table(columns, rows))
            continue
        seconds = {"minutes": [(link.seconds or 0) / 60 for link in known]}
        longest = max(seconds["minutes"]) or 1.0
        drawn = bars([link.stage for link in known], seconds, "minutes by stage", top=longest)
        parts.append(join((drawn, table(columns, rows))))
    return join(parts)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time not known: killed once"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def commands_section(told: Sequence[Told]) -> Html:
    """The commands that made the runs, and the versions they ran with."""
    parts: list[Html] = []
    for one in told:
        lines = dict.fromkeys(link.command for link in one.links if link.record is not None)
        if len(told) > 1:
            parts.append(node("h3", one.name))
        parts.append(node("pre", "\n".join(lines)))
        record = one.last.record
        if record and record.versions:
            versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
            parts.append(node("p", versions, class_="soft"))
    return join(parts)
