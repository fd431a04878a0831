"""`wsss import-scores`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss_cli.cli import completion, console, stage
from wsss_cli.cli.following import line
from wsss_cli.cli.options import RUNS, JsonOption, RunsOption
from wsss_cli.errors import UsageError

if TYPE_CHECKING:
    from wsss_cli.stages.teacher import Counts

ONLY_TAGGED = "no score of a class that is not tagged: where the teacher was asked for tags alone, false tells nothing"


def import_scores(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Data set directory with the tags.")],
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A JSON of instances (COCO), or a folder of label maps (.png) or .npz."),
    ],
    teacher: Annotated[
        str, typer.Option(metavar="TEXT", help="What made them, such as 'SAM 3'; stands beside every figure.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the run; if left out, that of SOURCE.")] = "",
    split: Annotated[str, typer.Option(metavar="NAME", help="The list of photographs that are trained on.")] = "train",
    rename: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=CLASS", help="A label of the JSON means a class; repeatable.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A COCO JSON whose images and categories name the ids.")
    ] = None,
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Take masks or scores that another tool has made, within the tags, as a run in place of CAMs.

    SOURCE is what Grounded-SAM, SAM 3, ultralytics, autodistill, FiftyOne or CVAT write as COCO JSON (run-length codes
    or polygons, scores), label maps with the classes' numbers (255: unknown), or .npz files as `wsss cam` writes them.
    Classes that a photograph is not tagged with are dropped and counted. All later stages work unchanged, and every
    figure that comes of them names the teacher: a network that has seen masks of other images is not of tags alone.

    \b
    wsss import-scores data/mine sam3.json --teacher 'SAM 3'
    wsss import-scores data/mine results.json --names instances.json --rename 'moggy=cat' --teacher 'YOLO 11 x-seg'
    wsss import-scores data/mine masks/ --teacher 'colleague, by hand' --split train
    """
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.stages.teacher import Source, run_import

    if not teacher.strip():
        raise UsageError("--teacher is empty", "say what made the scores: --teacher 'SAM 3'")
    renames = label_renames(rename or ())
    with stage.working("cpu", runs) as ctx:
        opened = open_dataset(dataset, console.say)
        done = run_import(opened, split, Source(source, teacher, renames, names), name or _name(source), ctx)
    if json_output:
        object_ = {"run": str(done.run), "lost": done.lost, "classes": _plain(done.counts), "notes": done.notes}
        console.result_json({**object_, "scores": done.scores, "skipped": done.skipped})
    else:
        _show(teacher, done.counts, done.notes)
        console.result(str(done.run))
    listed = [] if split == "train" else ["--set", f"dataset.train={split}"]
    after = line("pseudo", "--preset", "NAME", "--data", dataset, "--cams", done.run, *listed, "--runs", runs)
    stage.finish(str(done.run), done.skipped, done.lost, after.removesuffix(" --runs runs"), json_output)


def label_renames(texts: Sequence[str]) -> dict[str, str]:
    """LABEL=CLASS pairs of --rename.

    Raises:
        UsageError: one is no pair, or two are of one label.
    """
    renames: dict[str, str] = {}
    for text in texts:
        label, equals, target = text.partition("=")
        if not label or not equals or not target:
            raise UsageError(f"--rename {text}: LABEL=CLASS is meant", "for instance --rename moggy=cat")
        if renames.setdefault(label, target) != target:
            raise UsageError(f"--rename {text}: {label!r} is renamed twice", "leave out one of them")
    return renames


def _name(source: Path) -> str:
    plain = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in source.stem or source.name)
    return plain.strip("-.") or "teacher"


def advise(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", autocompletion=completion.runs("cam"), help="A run of import-scores.")
    ],
    runs: RunsOption = RUNS,
    json_output: JsonOption = False,
) -> None:
    """Say for each class whether a teacher is any good here, by the tags alone.

    hits: share of the photographs with the tag in which a score passes one half; false: the same among those without
    it. teacher: hits from 90 %, false up to 5 %; CAM: hits below 50 %, or false above half of the hits; both: between
    these. The limits are proposals, which nobody has measured. A teacher that was asked for the tagged classes alone
    has no false finds to be told by.

    \b
    wsss advise runs/cam-sam3-1a2b3c4d
    """
    from wsss_cli.data.dataset import open_dataset
    from wsss_cli.engine.records import is_run, read_inputs, read_run
    from wsss_cli.stages.teacher import counted

    path = runs / run if is_run(runs / run) and not is_run(run) else run
    read_run(path, "cam")
    inputs = read_inputs(path)
    counts = counted(path, open_dataset(inputs.dataset, console.say))
    if json_output:
        console.result_json({"run": str(path), "teacher": inputs.teacher, "classes": _plain(counts)})
        return
    _show(inputs.teacher, counts, ())


def _plain(counts: Mapping[str, Counts]) -> dict[str, dict[str, Any]]:
    return {
        label: {**vars(one), "hit": one.hit, "false": one.false, "advice": one.advice} for label, one in counts.items()
    }


def _show(teacher: str, counts: Mapping[str, Counts], notes: Sequence[str]) -> None:
    from wsss_cli.report.tables import Table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.0f} %"

    rows = tuple(
        (label, f"{one.tagged:,}", f"{one.taken:,}", share(one.hit), f"{one.untagged:,}", share(one.false), one.advice)
        for label, one in counts.items()
    )
    columns = ("class", "tagged", "with scores", "hits", "dropped: not tagged", "false", "take")
    asked = [] if any(one.untagged for one in counts.values()) else [ONLY_TAGGED]
    console.table(
        Table(f"{teacher}: photographs by class", columns, rows, notes=(*notes, *asked), left=frozenset({0, 6}))
    )
