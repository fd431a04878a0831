"""Tables of results: one dataclass, shown by Rich on a terminal, as plain text elsewhere, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len

from wsss_cli.escapes import csv_cell, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Value = float | int | str | None


@dataclass(frozen=True)
class Table:
    """Cells of text, a row of means below them, and notes (the protocol) at the end.

    Args:
        title: one line, may be empty.
        columns: heads.
        rows: as many cells each as there are columns.
        footer: a last row set apart; empty for none.
        notes: lines below the table.
        left: indices of the columns aligned left; the others are aligned right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left: frozenset[int] = frozenset({0})

    def __post_init__(self) -> None:
        for row in (*self.rows, *([self.footer] if self.footer else [])):
            if len(row) != len(self.columns):
                raise ValueError(f"row {row} has {len(row)} cells for {len(self.columns)} columns")

    def to_rich(self, width: int) -> RenderableType:
        """For a terminal of so many columns. No cell, title or note is parsed as markup.

        Names stay whole, to be copied, where they fit side by side: text beside them is broken into lines.
        """
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        whole = self.fits(width)
        last = self.footer or ("",) * len(self.columns)
        shown = RichTable(
            box=box.SIMPLE_HEAD,
            show_footer=bool(self.footer),
            show_header=any(self.columns),
            header_style="bold",
            footer_style="bold",
        )
        for index, (head, foot) in enumerate(zip(self.columns, last, strict=True)):
            side = "left" if index in self.left else "right"
            words = whole and not any(len(cell.split()) > 1 for cell in (head, *(row[index] for row in self.rows)))
            shown.add_column(
                Text(_printable(head)),
                Text(_printable(foot)),
                justify=side,  # type: ignore[arg-type]
                overflow="fold",
                no_wrap=words,
            )
        for row in self.rows:
            shown.add_row(*(Text(_printable(cell)) for cell in row))
        title = [Text(_printable(self.title), "bold")] if self.title else []
        return Group(*title, shown, *(Text(_printable(note), "dim") for note in self.notes))

    def fits(self, width: int) -> bool:
        """Whether its words do, side by side, in a terminal of so many columns."""
        columns = zip(*(row for row in (self.columns, *self.rows, self.footer) if row), strict=True)
        longest = [max(cell_len(word) for cell in column for word in (*cell.split(), "")) for column in columns]
        return sum(longest) + 3 * len(longest) + 1 <= width

    def as_records(self) -> Table:
        """Each row in lines of its own, one for each cell that says something."""
        rows: list[tuple[str, str]] = []
        for row in self.rows:
            rows += [("", "")] if rows else []
            rows += [(head, cell) for head, cell in zip(self.columns, row, strict=True) if cell != "-"]
        rows += [(f"{head}, all", cell) for head, cell in zip(self.columns, self.footer, strict=False) if cell]
        return Table(self.title, ("", ""), tuple(rows), notes=self.notes, left=frozenset({0, 1}))

    def to_plain(self) -> str:
        """Aligned columns without any escape sequence, ending in a line feed."""
        heads = [self.columns] if any(self.columns) else []
        rows = [
            [_printable(cell) for cell in row] for row in (*heads, *self.rows, *([self.footer] if self.footer else []))
        ]
        widths = [max((cell_len(row[index]) for row in rows), default=0) for index in range(len(self.columns))]
        rule = "  ".join("-" * width for width in widths)
        lines = [self._line(row, widths) for row in rows]
        if heads:
            lines.insert(1, rule)
        if self.footer:
            lines.insert(-1, rule)
        title = [_printable(self.title)] if self.title else []
        return "\n".join([*title, *lines, *(_printable(note) for note in self.notes)]) + "\n"

    def to_markdown(self) -> str:
        """A GitHub table, the footer in bold, the notes as a paragraph each."""
        align = [":--" if index in self.left else "--:" for index in range(len(self.columns))]
        rows = [[_markdown(cell) for cell in row] for row in (self.columns, *self.rows)]
        rows.insert(1, align)
        if self.footer:
            rows.append([f"**{_markdown(cell)}**" if cell.strip() else "" for cell in self.footer])
        title = [f"**{_markdown(self.title)}**", ""] if self.title else []
        notes = [line for note in self.notes for line in ("", _markdown(note))]
        return "\n".join([*title, *("| " + " | ".join(row) + " |" for row in rows), *notes]) + "\n"

    def to_csv(self) -> str:
        """Heads, rows and footer as CSV; title and notes are left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = [self.columns, *self.rows, *([self.footer] if self.footer else [])]
        writer.writerows([csv_cell(cell) for cell in row] for row in rows)
        return text.getvalue()

    def to_json(self) -> str:
        """The cells as they are shown, as one JSON object; exact values are in the results they were made from."""
        fields = {key: getattr(self, key) for key in ("title", "columns", "rows", "footer", "notes")}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))  # wide characters take two columns
            cells.append(cell + space if index in self.left else space + cell)
        return "  ".join(cells).rstrip()


NARROW = 40
MANY = 4  # columns, of a table whose rows are taken apart where it does not fit


def print_table(table: Table, file: TextIO, is_terminal: bool | None = None) -> None:
    """Print to `file`: by Rich on a terminal (it heeds NO_COLOR), else plain. `is_terminal` None: `file` is asked.

    On a terminal of less than 40 columns plain, too: Rich would leave columns out to fit.
    """
    if is_terminal if is_terminal is not None else file.isatty():
        from rich.console import Console  # here: it takes long, and plain text does without

        console = Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)
        if console.width >= NARROW:
            apart = len(table.columns) >= MANY and not table.fits(console.width)
            console.print((table.as_records() if apart else table).to_rich(console.width))
            return
    file.write(table.to_plain())


METRICS = {  # key in the scores: (head, key of the mean)
    "iou": ("IoU", "miou"),
    "acc": ("Acc", "macc"),
    "dice": ("Dice", "mdice"),
    "fscore": ("F", "mfscore"),
    "precision": ("precision", ""),
    "recall": ("recall", ""),
    "biou": ("boundary IoU", "mbiou"),
    "fp": ("FP", "mfp"),  # over-activation, in parts of the union; the mean is of the foreground
    "fn": ("FN", "mfn"),  # under-activation, likewise
}


def class_table(
    results: Mapping[str, Mapping[str, Any]],
    title: str = "",
    notes: Sequence[str] = (),
    metrics: Sequence[str] = ("iou", "acc"),
) -> Table:
    """Scores of each class, their means below, the protocol of each result at the end.

    Args:
        results: what `metrics.scores.summary` returns, by name, e.g. 'single scale' and 'ms+flip', of the same
            classes.
        notes: further lines, after the protocols.
        metrics: keys of METRICS.
    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("no results to show")
    several = len(results) > 1
    heads, columns, means, lines = ["class"], [], ["mean"], []
    for name, result in results.items():
        prefix = f"{name}: " if several else ""
        shown = [key for key in metrics if key in result]
        heads += [f"{name} {METRICS[key][0]}" if several and not n else METRICS[key][0] for n, key in enumerate(shown)]
        columns += [result[key] for key in shown]
        means += [percent(result.get(METRICS[key][1])) for key in shown]
        lines.append(f"{prefix}aAcc {percent(result['aacc'])}")
        if (share := result.get("undecided_share")) and (line := f"undecided (255): {100 * share:.2f} %") not in lines:
            lines.append(line)  # the same for all ways to count it
            lines += [] if any(result.get("pred", (0, 1))[1:]) else ["predicted are 0 and 255 alone: are objects 255?"]
        lines += [line for line in truth_lines(result) if line not in lines]
        lines += [f"{prefix}{result['protocol']}"] if result.get("protocol") else []
    classes = next(iter(results.values()))["classes"]
    rows = tuple((name, *(percent(column[index]) for column in columns)) for index, name in enumerate(classes))
    return Table(title, tuple(heads), rows, tuple(means), (*lines, *notes))


def truth_lines(result: Mapping[str, Any]) -> list[str]:
    """What of the truth is not scored: the share of 255, classes without a pixel; and predictions without truth.

    Args:
        result: what `metrics.scores.summary` returns; `unscored_share` in 0..1 and `extra`, a count, if known.
    """
    share = (
        [f"unscored (255 in the truth): {100 * result['unscored_share']:.2f} %"] if result.get("unscored_share") else []
    )
    counts = result.get("label") or ()
    never = [name for name, count in zip(result["classes"], counts, strict=False) if not count]
    extra = [f"predictions without a true mask, not scored: {result['extra']:,}"] if result.get("extra") else []
    return [*share, *([f"never in the truth: {', '.join(never)}"] if never else []), *extra]


def value_table(rows: Iterable[tuple[str, Value]], title: str = "", notes: Sequence[str] = ()) -> Table:
    """Labels and values, as at the end of a demo; floats get two decimals, None is '-'."""
    cells = tuple((label, value if isinstance(value, str) else percent(value)) for label, value in rows)
    return Table(title, ("", ""), cells, notes=tuple(notes))


def curve_table(curve: Mapping[str, Any], title: str = "", step: float = 0.05) -> Table:
    """A threshold curve at every multiple of `step` and at its best, which is marked.

    Args:
        curve: what `stages.score.cam_curve` returns; its protocol may be one line or several.
    """
    best = curve["best_threshold"]
    top = max((value for value in curve["miou"] if value is not None), default=0.0)
    rows = []
    for threshold, miou, fp, fn in zip(curve["thresholds"], curve["miou"], curve["fp"], curve["fn"], strict=True):
        if threshold == best or abs(threshold / step - round(threshold / step)) < 1e-6:
            bar = "#" * round(24 * (miou or 0.0) / top) if top else ""
            mark = f"{bar} best" if threshold == best else bar
            rows.append((f"{threshold:.2f}", percent(miou), percent(fp), percent(fn), mark.strip()))
    protocol = curve.get("protocol") or ()
    notes = [protocol] if isinstance(protocol, str) else [*protocol]
    if "best" in curve:
        notes += truth_lines({**curve["best"], "unscored_share": curve.get("unscored_share")})
    if curve.get("without_cam"):
        notes.append(f"{curve['without_cam']:,} of {curve['images'] + curve['without_cam']:,} true masks have no CAM")
    return Table(title, ("threshold", "mIoU", "FP", "FN", ""), tuple(rows), notes=tuple(notes), left=frozenset({4}))


TEXTS = ("method", "backbone", "crop", "supervision", "teacher", "data", "device")  # columns aligned left


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Finished trainings in the columns of MMSegmentation's tables, published figures beside, protocols below.

    Args:
        rows: what `stages.table.run_row` returns.
    """
    taught = any(row["teacher"] for row in rows)
    columns = (
        *("method", "backbone", "crop", "lr schedule", "supervision"),
        *(("teacher",) if taught else ()),
        *("data", "mem (GiB)", "fps", "device"),
        *("mIoU", "mIoU (ms+flip)", "reference", "reference (ms+flip)"),
    )
    cells = []
    for row in rows:
        known = row["reference"] or {}
        cells.append(
            (
                *(row["method"], row["backbone"], f"{row['crop']}x{row['crop']}", f"{row['iters']:,}"),
                row["supervision"],
                *((row["teacher"] or "-",) if taught else ()),
                *(row["data"], percent(row["memory_gib"]), percent(row["fps"])),
                *(row["device"] or "-", percent(row["miou"]), percent(row["miou_ms_flip"])),
                *(percent(known.get("miou")), percent(known.get("miou_ms_flip"))),
            )
        )
    notes = []
    for row in rows:
        notes += [f"{row['run']}:", *(f"  {line}" for line in row["protocol"])]
        if row["reference"]:
            notes.append(f"  reference: {row['reference']['source']}")
    left = frozenset(columns.index(name) for name in columns if name in TEXTS)
    return Table("", columns, tuple(cells), notes=tuple(notes), left=left)


def percent(value: float | int | None) -> str:
    """Two decimals for a float, an integer as it is, '-' for None (undefined)."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _printable(text: str) -> str:
    """Class names come from files: nothing in them may move the cursor, start a colour, or break a row."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", _printable(text))
