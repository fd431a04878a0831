"""What a training's log lines say: losses, images a second, time spent waiting for data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wsss_cli.engine.context import Event
from wsss_cli.errors import DivergedError
from wsss_cli.ranks.sums import alone, total
from wsss_cli.ranks.who import here

GLANCE_S = 1.0


class Meter:
    """Mean losses, images a second and the share of time spent waiting for data, since the last log line.

    What is counted goes into checkpoints (`state`), so that a log line after a resume is of its whole interval.

    Args:
        iters: iterations of the whole training.
        device: where the losses are.
    """

    def __init__(self, iters: int, device: torch.device) -> None:
        self.iters, self.device = iters, device
        self.names: list[str] = []
        self.trained, self.begin = 0, time.perf_counter()  # iterations of this process, and since when
        self.glanced = -math.inf
        self._restart()

    def _restart(self) -> None:
        self.total = torch.zeros(1, device=self.device)  # as long as there are losses once one is added
        self.steps = self.images = 0
        self.waited, self.since = 0.0, time.perf_counter()

    def state(self) -> dict[str, Any]:
        """What is counted since the last log line; asked of every rank, as losses are those of all."""
        elapsed = time.perf_counter() - self.since
        counts = {"steps": self.steps, "images": self.images, "waited": self.waited, "elapsed": elapsed}
        return {"names": list(self.names), "total": total(self.total).cpu(), **counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.names, self.total = list(state["names"]), state["total"].to(self.device)
        if here().rank:  # they were added up
            self.total = torch.zeros_like(self.total)
        self.steps, self.images, self.waited = state["steps"], state["images"], state["waited"]
        self.since = time.perf_counter() - state["elapsed"]

    def wait(self) -> None:
        """A batch is waited for from now on."""
        self.mark = time.perf_counter()

    def go(self) -> None:
        """The batch is there."""
        self.waited += time.perf_counter() - self.mark

    def without(self, work: Callable[[], Event]) -> Event:
        """Do something else, such as a validation, whose time does not count."""
        begin = time.perf_counter()
        event = work()
        seconds = time.perf_counter() - begin
        self.since += seconds
        self.begin += seconds
        return event

    def add(self, names: list[str], losses: Tensor, images: int) -> None:
        """Count an iteration.

        Args:
            names: of its losses.
            losses: their sum, then each, [1 + len(names)]; of several ranks this one's share.
            images: of the global batch.
        """
        self.names, self.total = names, self.total + losses
        self.steps += 1
        self.trained += 1
        self.images += images

    def check(self, step: int, model: nn.Module | None = None) -> float:
        """The mean loss since the last log line, 0 where no iteration was counted.

        Raises:
            DivergedError: it is not finite, or a tensor of the model is not.
        """
        mean = float(total(self.total)[0]) / max(self.steps, 1)
        sound = model is None or all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
        if not math.isfinite(mean) or not sound:
            raise DivergedError(
                f"the {'loss' if sound else 'network'} is not finite at iteration {step}; what was saved is kept",
                "lower the learning rate (optim.lr of this stage), or set its precision to fp32",
            )
        return mean

    def glance(self, step: int) -> Event | None:
        """How far training is, for who looks on, once a second at most; None: that was a moment ago."""
        now = time.perf_counter()
        if now - self.glanced < GLANCE_S or not self.steps:
            return None
        self.glanced = now
        pace = (now - self.begin) / max(self.trained, 1)
        event: Event = {"kind": "now", "step": step, "img_s": self.images / max(now - self.since, 1e-9)}
        event["eta_s"] = pace * (self.iters - step)
        if alone():  # ranks know theirs only
            event["loss"] = float(self.total[0]) / self.steps
        return event

    def event(self, step: int, lr: float) -> Event:
        """The log line of `step` iterations; what follows counts for the next one.

        Raises:
            DivergedError: the loss is not finite.
        """
        mean = self.check(step)
        elapsed = max(time.perf_counter() - self.since, 1e-9)
        pace = (time.perf_counter() - self.begin) / max(self.trained, 1)
        event: Event = {
            "kind": "train",
            "step": step,
            "iters": self.iters,
            "loss": round(mean, 6),
            "lr": lr,
            "img_s": round(self.images / elapsed, 2),
            "data_wait": round(self.waited / elapsed, 4),
            "eta_s": round(pace * (self.iters - step), 1),
        }
        if len(self.names) > 1:
            each = (total(self.total)[1:] / max(self.steps, 1)).tolist()
            event |= {f"loss_{name}": round(value, 6) for name, value in zip(self.names, each, strict=True)}
        if self.device.type == "cuda":
            event["memory_gib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
        self._restart()
        self.glanced = self.since
        return event
