"""Where the scores of `wsss eval` come from: a folder of masks or of CAMs, a run with stored scores, or a network."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_cli.cli import console, sharded
from wsss_cli.cli.following import line
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import pngs_below
from wsss_cli.processes import cores

if TYPE_CHECKING:
    from wsss_cli.engine.context import Context
    from wsss_cli.engine.shards import Shard
    from wsss_cli.stages.evaluate import Evaluation

Scored = tuple[dict[str, Any], Any]  # scores, and a table of them
LOOK = "wsss show and wsss report show what it has made"
NETWORK_MODES = {  # key in the scores: name in the table; the first of these that is there is the figure of the run
    "ms_flip_crf": "ms+flip, CRF",
    "ms_flip": "ms+flip",
    "single_crf": "single scale, CRF",
    "single": "single scale",
}


def mask_folder(pred: Path, truth: Path, num_classes: int, undecided: Any, columns: list[str]) -> Scored:
    """Score the masks of a folder.

    Raises:
        DataError: as `score_masks`; or no true mask holds anything but 0 and 255, as where objects are 255.
    """
    from wsss_cli.report.tables import class_table
    from wsss_cli.scoring.masks import score_masks
    from wsss_cli.scoring.renumbered import renumbered

    images = sum(1 for _ in pngs_below(truth)) if truth.is_dir() else 0
    with console.progress(images, "eval") as bar, Stop(console.say_at_once).listening() as stop:
        scores = score_masks(
            pred,
            truth,
            num_classes,
            check=stop.check,
            undecided=undecided,
            boundary="biou" in columns,
            workers=cores(),
            progress=bar.advance,
        )
    if scores["unscored_share"] and not any(scores["label"][1:]):
        held = "0 and 255" if scores["label"][0] else "255"
        raise DataError(
            f"the true masks in {truth} hold {held} only: are objects 255? 255 is not scored",
            "write class indices: 0 background, 1, 2, ... the classes; 255 where a pixel is not to be scored",
        )
    if warning := renumbered(scores):
        console.complain(warning)
    return scores, class_table({"IoU": scores}, str(pred), metrics=columns)


def cam_folder(pred: Path, cams: list[Path], truth: Path, num_classes: int) -> Scored:
    """Score the CAMs of a folder at every background threshold.

    Raises:
        DataError: none of them has a true mask.
    """
    from wsss_cli.engine.records import namer
    from wsss_cli.report.tables import curve_table
    from wsss_cli.scoring.cams import cam_curve

    name = namer(pred)
    pairs = [(cam, truth / f"{name(cam)}.png") for cam in cams]
    pairs = [(cam, mask) for cam, mask in pairs if mask.is_file()]
    if not pairs:
        raise DataError(
            f"no CAM in {pred} has a true mask of its name in {truth}", "the true mask of 001.npz is 001.png"
        )
    with console.progress(len(pairs), "seed curve") as bar, Stop(console.say_at_once).listening() as stop:
        curve = cam_curve(pairs, num_classes, check=stop.check, workers=cores(), progress=bar.advance)
    curve["without_cam"] = sum(1 for _ in pngs_below(truth)) - len(pairs)
    return curve, curve_table(curve, "seeds by background threshold")


def cam_run(run: Path) -> Scored:
    """The stored scores of a cam run.

    Raises:
        UsageError: there are none.
    """
    from wsss_cli.report.tables import curve_table

    stored = _stored_scores(run)
    return stored, curve_table(stored, "seeds by background threshold")


def pseudo_run(run: Path, columns: list[str]) -> Scored:
    """The stored scores of a pseudo run.

    Args:
        columns: keys of METRICS that the table shows.
    Raises:
        UsageError: there are none, or some of the columns were not scored.
    """
    from wsss_cli.report.tables import class_table

    stored = _stored_scores(run)
    if "background" not in stored:
        raise UsageError(f"{run} has no scores: its score split has no masks", LOOK)
    lacking = [key for key in columns if not isinstance(stored["background"].get(key), list)]
    if lacking:
        classes = len(stored["background"]["classes"])
        raise UsageError(
            f"{run} was scored without {', '.join(lacking)}",
            f"{line('eval', '--pred', run / 'masks', '--truth', 'MASKS', '--num-classes', classes)} "
            f"--undecided background --metrics {','.join(columns)}",
        )
    results = {"255 as background": stored["background"], "255 left out": stored["drop"]}
    return stored, class_table(results, "pseudo masks", stored["protocol"], columns)


def network(
    run: Path,
    columns: list[str],
    working: AbstractContextManager[Context],
    on: dict[str, Any] | None = None,
    best: bool = False,
    weights: str = "",
    part: Shard | None = None,
    as_json: bool = False,
    **scoring: Any,
) -> Scored:
    """Score the network of a run, of a checkpoint folder or of an imported directory.

    Args:
        on: fields of `ScoredOn`.
        working: see `stage.working`.
        best: the checkpoint that validated best, not the last.
        weights: 'ema', 'raw' or empty, see `Which`.
        part: the shard that is counted here; where others are missing, that is said, and the command ends.
        as_json: it is said as JSON, too.
        scoring: as for `open_evaluation`.
    """
    from wsss_cli.data.dataset import not_a_result
    from wsss_cli.engine.records import is_run
    from wsss_cli.inference.network import Which
    from wsss_cli.ranks.group import only_first
    from wsss_cli.report.tables import class_table
    from wsss_cli.stages.evaluate import ScoredOn, open_evaluation, score
    from wsss_cli.stages.report import leave_report

    which = Which("best" if best else "latest", weights)
    with working as ctx:
        evaluation = open_evaluation(
            run, ctx, boundary="biou" in columns, which=which, on=ScoredOn(**(on or {})), **scoring
        )
        scores = score(evaluation, ctx) if part is None else _shard(evaluation, part, ctx)
        if scores is not None and scores["file"] and is_run(run):  # its page said that it has no scores
            only_first(lambda: leave_report(run, ctx))
    if scores is None:
        assert part is not None
        sharded.end(run, evaluation.place, part, as_json)
    title = f"{run} ({not_a_result(scores['limit'])})" if scores.get("limit") else str(run)
    results = {mode: scores[key] for key, mode in reversed(NETWORK_MODES.items()) if key in scores}
    return scores, class_table(results, title, scores["protocol"], columns)


def _shard(evaluation: Evaluation, part: Shard, ctx: Context) -> dict[str, Any] | None:
    from wsss_cli.stages.eval_shards import run_eval_shard, stored_scores

    if stored_scores(evaluation) is not None:
        console.say(f"{evaluation.file} is of this evaluation already; without --shard it is made anew")
    return run_eval_shard(evaluation, part, ctx)


def _stored_scores(run: Path) -> dict[str, Any]:
    from wsss_cli.scoring.stored import FILE, read_scores

    if not (run / FILE).is_file():
        raise UsageError(f"{run} has no scores", f"its score split has no masks, or the run is not finished; {LOOK}")
    return read_scores(run, whole=True)
