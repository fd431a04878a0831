"""Batches of a sweep computed in smaller parts where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wsss_cli.errors import ResourceError, out_of_memory
from wsss_cli.talk import sides

if TYPE_CHECKING:
    from wsss_cli.engine.context import Context
    from wsss_cli.engine.sweep import Batch, Size, SweepOptions


class Halving:
    """Computes batches in equal parts, twice as many each time that memory is short."""

    def __init__(self, compute: Callable[[list[Any]], Iterable[Any]], options: SweepOptions, ctx: Context) -> None:
        self.compute, self.options, self.ctx = compute, options, ctx
        self.parts, self.told = 1, False

    def run(self, loaded: list[Any], batch: Batch[Any]) -> Iterator[Any]:
        """The results of what is loaded of a batch, in order.

        Raises:
            ResourceError: memory is short for one item by itself.
        """
        size_of = self.options.size_of
        sizes = [size_of(one) for one in loaded] if size_of else []
        if all(size == batch.size for size in sizes):
            yield from self._run(loaded, batch.size)
            return
        if not self.told:
            self.ctx.ui.say("photographs have other sizes than their list says: taken as they are")
            self.ctx.ui.say("hint: `wsss prepare` writes sizes anew, `wsss verify` names the photographs")
            self.told = True
        results: dict[int, Any] = {}
        for size in dict.fromkeys(sizes):
            numbers = [number for number, one in enumerate(sizes) if one == size]
            results |= zip(numbers, self._run([loaded[number] for number in numbers], size), strict=True)
        yield from (results[number] for number in range(len(loaded)))

    def _run(self, loaded: list[Any], size: Size | None) -> Iterator[Any]:
        start = 0
        while start < len(loaded):
            part = loaded[start : start + max(1, -(-len(loaded) // self.parts))]
            results = self._attempt(part)
            if results is None:  # what the attempt held is free again
                self._halve(len(part), "" if size is None else f" of {sides(size)}")
                continue
            start += len(part)
            yield from results

    def _attempt(self, part: list[Any]) -> list[Any] | None:
        try:
            return list(self.compute(part))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _halve(self, count: int, of_size: str) -> None:
        if count == 1:
            raise ResourceError(
                f"out of memory with one image{of_size}", f"make it need less: {self.options.less_memory}"
            )
        if self.parts == 1:
            self.ctx.ui.say(f"out of memory with {count} images{of_size}: going on with {-(-count // 2)}")
        self.parts *= 2
        if self.ctx.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
