"""Counting a network's predictions against true masks while the next ones are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from torch import Tensor

from wsss_cli.data.batches import to_device
from wsss_cli.engine.context import Context
from wsss_cli.labels import IGNORE
from wsss_cli.metrics.on_device import DeviceConfusion
from wsss_cli.scoring.counts import Counts

WAITING = 64  # predictions that may wait to be counted
COUNT_THERE = ("cuda",)  # devices on which pixels are counted, so that label maps need not leave them
Add = Callable[[dict[str, Tensor], list[np.ndarray]], None]  # given what was predicted, and the true masks


def counted(counts: dict[str, Counts], ctx: Context) -> AbstractContextManager[Add]:
    """What adds predictions to `counts`; they are complete when the context ends.

    Boundary IoU is counted on the CPU, and the confusion with it.
    """
    there = ctx.device.type in COUNT_THERE and not any(count.boundary for count in counts.values())
    return count_there(counts, ctx) if there else count_here(counts)


@contextmanager
def count_here(counts: dict[str, Counts]) -> Iterator[Add]:
    """Count on the CPU, in a thread, while the next batch is computed; one thread, as the counts are shared."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:

        def add(found: dict[str, Tensor], masks: list[np.ndarray]) -> None:
            for mode, count in counts.items():
                for prediction, mask in zip(found[mode].cpu().numpy(), masks, strict=True):
                    waiting.append(pool.submit(count.add, prediction, mask))
            while len(waiting) > WAITING:
                waiting.popleft().result()

        yield add
        for task in waiting:
            task.result()


@contextmanager
def count_there(counts: dict[str, Counts], ctx: Context) -> Iterator[Add]:
    """Count on the device: the host waits for it once, at the end."""
    there = {mode: DeviceConfusion(count.confusion.num_classes, ctx.device) for mode, count in counts.items()}

    def add(found: dict[str, Tensor], masks: list[np.ndarray]) -> None:
        truth = to_device(np.stack(masks), ctx.device)
        for mode, confusion in there.items():
            confusion.add(found[mode], truth, IGNORE)

    yield add
    for mode, confusion in there.items():
        counts[mode].confusion.matrix += confusion.matrix()
