"""Lists of a data set that are others than when an earlier run was made from them: by their SHA-256, and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsss_cli.data.dataset import Dataset
from wsss_cli.engine.records import Inputs, find_runs, is_run, read_inputs
from wsss_cli.errors import DataError
from wsss_cli.stages.plan import Experiment, Step


def changed_lists(inputs: Inputs, dataset: Dataset, splits: Sequence[str] = ()) -> str:
    """Which lists of a data set are others than those that a run was made from, in words; empty: none, or not known.

    A run of an earlier version knows the fingerprint of all lists at most, and one of these no more than that they are
    others.

    Args:
        splits: those that matter; empty: all that the run knows, and those that came later.
    """
    now, then = dataset.split_sha256, inputs.split_sha256
    if not then:
        other = inputs.dataset_fingerprint not in ("", dataset.fingerprint)
        return "a list (which one is not recorded)" if other else ""
    matter = sorted({*splits} or {*then, *now})
    changed = [name for name in matter if then.get(name) != now.get(name)]
    return f"split{'s' * (len(changed) > 1)} {', '.join(changed)}" if changed else ""


def say_changes(steps: Sequence[Step], exp: Experiment, say: Callable[[str], None]) -> None:
    """Say where a list changed since the runs that steps read were made, and where it is why a run is made anew.

    Args:
        steps: of a plan.
    """
    settings, todo = exp.preset.dataset, [step for step in steps if not step.done]
    planned = {step.path for step in todo}
    for read in {read.path: read for step in todo for read in step.reads if read.path not in planned}.values():
        changed = _changed(read, exp, (settings.train, settings.score)) if is_run(read.path) else ""
        if changed:
            say(f"{read.path} was made before {changed} of {exp.dataset.root} changed (SHA-256); read all the same")
            say("hint: to have it made anew, leave it out of the command, or run its own command again")
    for step in todo:
        if step.stage == "eval" or is_run(step.path):
            continue
        for path, record in find_runs(exp.runs, step.kind):
            before = Step(step.stage, path, record.identity)
            if record.preset == exp.preset.name and (changed := _changed(before, exp, ())):
                say(f"{changed} of {exp.dataset.root} changed since {path} was made (SHA-256): that is made anew")
                return  # what follows it is, too


def _changed(step: Step, exp: Experiment, splits: Sequence[str]) -> str:
    try:
        inputs = read_inputs(step.path)
    except DataError:
        return ""  # whoever reads it names what is wrong
    same = inputs.dataset == str(exp.dataset.root) or inputs.dataset_name == exp.dataset.name
    return changed_lists(inputs, exp.dataset, splits) if same else ""
