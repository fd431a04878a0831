"""What the runs of finished steps say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_cli.engine.records import is_run, limit_of, read_record
from wsss_cli.scoring.stored import read_scores
from wsss_cli.stages.plan import Step


@dataclass
class Result:
    """What a stage leaves: its run directory, its scores, and the items it lost; skipped: it was there before."""

    run: Path
    scores: dict[str, Any] = field(default_factory=dict)
    lost: list[dict[str, str]] = field(default_factory=list)
    skipped: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the steps of a plan left.

    Attributes:
        results: by stage, in order; of several rounds the last.
        lost: items that those lost that had something to do, each with the first reason: an image without a CAM has no
            pseudo mask either.
    """

    results: dict[str, Result]
    lost: list[dict[str, str]]

    @property
    def last(self) -> Result:
        return list(self.results.values())[-1]

    def as_json(self) -> dict[str, Any]:
        """The object that a stage's command prints with --json."""
        last = self.last
        limit = {"limit": limit} if (limit := limit_of(last.run)) else {}
        return {"run": str(last.run), "skipped": last.skipped, "lost": self.lost, "scores": last.scores, **limit}


def outcome(steps: Sequence[Step]) -> Outcome:
    """What the runs of finished steps say of themselves."""
    pairs = [(step, _result(step)) for step in steps if is_run(step.path)]
    lost = [entry for step, result in pairs if not step.done for entry in result.lost]
    results: dict[str, Result] = {}
    for step, result in pairs:
        results.pop(step.stage, None)
        results[step.stage] = result
    return Outcome(results, list({entry["id"]: entry for entry in reversed(lost)}.values())[::-1])


def _result(step: Step) -> Result:
    scores = read_scores(step.path) if step.kind in ("cam", "pseudo", "eval") else {}
    lost = scores["lost"] if step.stage == "eval" else read_record(step.path).lost
    return Result(step.path, scores, [{"id": entry["id"], "reason": entry["reason"]} for entry in lost], step.done)
