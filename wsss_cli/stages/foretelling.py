"""How long all steps of a plan take, said once: at the pace of earlier runs, else guessed from the first iterations."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from wsss_cli.errors import DataError
from wsss_cli.processes import cores
from wsss_cli.stages.estimate import FEW, expected, in_words, training_of
from wsss_cli.stages.plan import Experiment, Step

if TYPE_CHECKING:
    from wsss_cli.engine.context import Bar, Event, Ui  # torch

SEGMENTOR = 2.5  # what a pixel costs in a segmentation network, in a classifier's; measured with EfficientNet-Lite0
FORWARD = 1 / 3  # of what a pixel costs in training
REFINING_S = 2e-6  # of a process for a pixel and a refining step at both thresholds, measured with the dense CRF
PIXELS = 500 * 375  # of a photograph whose size the list does not say


class Foretelling:
    """A `Ui` that hands on all that is said, and says once how long everything will take.

    Args:
        ui: it goes there.
        todo: the steps that are run, in order.
        device: its type.
    """

    def __init__(self, ui: Ui, exp: Experiment, todo: Sequence[Step], device: str) -> None:
        self.ui, self.exp, self.todo, self.device = ui, exp, todo, device
        self.at = 0  # the step that is run
        self.known = {number: expected(exp, step, device) for number, step in enumerate(todo)}
        self.told = len(todo) < 2

    def say(self, line: str) -> None:
        """As of the `ui`."""
        self.ui.say(line)

    def progress(self, total: int, title: str) -> AbstractContextManager[Bar]:
        """As of the `ui`."""
        return self.ui.progress(total, title)

    @contextlib.contextmanager
    def training_progress(self, title: str, iters: int) -> Iterator[Callable[[Event], None]]:
        """As of the `ui`; after some iterations the time of all steps is said."""
        first: list[int] = []

        def look(event: Event) -> None:
            show(event)
            if self.told or event["kind"] == "val":
                return
            first.append(event["step"])
            if event["step"] >= first[0] + FEW:
                self.told = True
                self.say(self.foretell(event["img_s"], event["eta_s"]))

        with self.ui.training_progress(title, iters) as show:
            yield look

    def foretell(self, pace: float, left: float) -> str:
        """The line that is said.

        Args:
            pace: images a second of the training that is run.
            left: its seconds.
        """
        training = training_of(self.exp.preset, self.todo[self.at].stage)
        assert training is not None
        cost = SEGMENTOR if self.todo[self.at].stage == "train" else 1.0
        pixels_s = pace * training[0].crop ** 2 * cost
        total, guessed = left, []
        for number, step in [*enumerate(self.todo)][self.at + 1 :]:
            if (took := self.known[number]) is not None:
                total += took.seconds
            else:
                total += guess(self.exp, step, pixels_s, self.device)
                guessed += [step.stage] if step.stage != "eval" else []  # which is short beside a training
        why = f"; a rough guess, as no earlier run of {', '.join(dict.fromkeys(guessed))} tells" if guessed else ""
        return f"{in_words(total)} left for all {len(self.todo) - self.at} steps{why}"


def guess(exp: Experiment, step: Step, pixels_s: float, device: str) -> float:
    """Seconds that a step may take, as far as that follows from the pace of a training: half or twice as much is usual.

    Args:
        pixels_s: that a classifier is trained on in a second here.
        device: its type; what a CPU refines takes its cores.
    """
    preset, stage = exp.preset, step.stage
    if (training := training_of(preset, stage)) is not None:
        config = training[0]
        return config.iters * config.batch * config.crop**2 * (SEGMENTOR if stage == "train" else 1.0) / pixels_s
    images, pixels = _photographs(exp, preset.dataset.val if stage == "eval" else preset.dataset.train)
    seen = images * pixels * FORWARD / pixels_s
    if stage == "cam":
        return seen * sum(scale**2 for scale in preset.cam.scales) * (2 if preset.cam.flip else 1)
    if stage == "eval":
        return seen * SEGMENTOR * sum(scale**2 for scale in (1.0, *preset.eval.scales, *preset.eval.scales))
    refined = images * pixels * REFINING_S * len(preset.pseudo.steps) / (cores() if device == "cpu" else 20)
    relabelled = seen * SEGMENTOR * sum(scale**2 for scale in preset.relabel.scales) * 2 if stage == "relabel" else 0.0
    return refined + relabelled


def _photographs(exp: Experiment, split: str) -> tuple[int, float]:
    """How many there are in a split, and the pixels of one of middle size."""
    try:
        samples = exp.dataset.split(split)
    except DataError:
        return 0, PIXELS
    sizes = [sample.size for sample in samples[:: max(len(samples) // 50, 1)] if sample.size]
    return len(samples), statistics.median(height * width for height, width in sizes) if sizes else PIXELS
