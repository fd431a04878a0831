"""What the commands of `wsss prepare` share: one writer at a time, progress, and the end of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_cli.cli import console
from wsss_cli.cli.following import line
from wsss_cli.errors import DataError
from wsss_cli.files import why_not_made
from wsss_cli.talk import counted

if TYPE_CHECKING:
    from wsss_cli.data.dataset import Dataset
    from wsss_cli.data.sources.archives import Fetched
    from wsss_cli.data.sources.preparation import Preparation
    from wsss_cli.data.sources.summary import Prepared
    from wsss_cli.engine.shards import Shard


FEW = 1000  # photographs that a processor takes through all stages in an evening


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """The lock of a data set directory; where nothing comes of it, a new directory goes again."""
    from wsss_cli.locks import locked

    _make(out)
    lock = out / ".prepare.lock"
    try:
        with locked(lock, f"{out} is being prepared"):
            yield
    finally:
        if list(out.iterdir()) == [lock]:
            lock.unlink()
            out.rmdir()


@contextlib.contextmanager
def whole(out: Path) -> Iterator[None]:
    """The lock of a data set directory that one command makes; what shards have seen of it is not needed any more.

    Raises:
        BusyError: one of them is at work.
    """
    from wsss_cli.stages.prepare_shards import forget_shards, refuse_at_work

    with alone(out):
        refuse_at_work(out)
        yield
        forget_shards(out)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = why_not_made(out, error)
        raise DataError(f"cannot create {out}: {why}", "choose another place with --out") from error


def share(
    work: Preparation,
    out: Path,
    shard: Shard,
    check: Callable[[], object],
    tick: Callable[[int, int], None],
    json_output: bool,
) -> Prepared:
    """Look at a shard of a data set. Where others are missing, say so and end the command."""
    import typer

    from wsss_cli.engine.shards import how_many_done, missing_shards, read_shards
    from wsss_cli.stages.prepare_shards import prepare_shard

    _make(out)
    prepared = prepare_shard(work, out, shard, check=check, tick=tick)
    if prepared is not None:
        return prepared
    records = read_shards(out)
    if json_output:
        missing = missing_shards(records, shard.of)
        console.result_json({"dataset": str(out), "shard": str(shard), "missing": missing})
    console.say(how_many_done(records, shard.of))
    raise typer.Exit


@contextlib.contextmanager
def ticking(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress that begins with the first item done, when the total is known."""
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def tick(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(console.progress(total, title)))
            bars[0].advance(1)

        yield tick


@contextlib.contextmanager
def fetching() -> Iterator[Callable[[str, int, int], None]]:
    """Progress in MB (10^6 bytes), a bar for each thing that is done to an archive."""
    with contextlib.ExitStack() as stack:
        now: dict[str, Any] = {"title": ""}

        def tell(title: str, done: int, total: int) -> None:
            if title != now["title"]:
                stack.close()
                now["title"] = title
                now["bar"] = stack.enter_context(console.progress(max(1, total // 1_000_000), f"{title}, MB"))
            if ahead := done // 1_000_000 - now["bar"].done:
                now["bar"].advance(ahead)

        yield tell


def any_preset(out: Path) -> str:
    """What comes after a data set that several presets are for."""
    return f"wsss presets list    (then: {line('run', '--preset', 'NAME', '--data', out)})"


def short_schedule(dataset: Dataset) -> list[str]:
    """Options of the schedule of an evening, as in docs/start/own-photographs.md: for few photographs and no GPU."""
    from wsss_cli.stages.preflight import usable_device

    if len(dataset.split("train")) > FEW or usable_device("auto") != "cpu":
        return []
    return ["--set", "classifier.iters=350", "--iters", "400"]


def say_fetched(archives: Sequence[Fetched]) -> None:
    """What was fetched, and its SHA-256."""
    for archive in archives:
        known = "as expected" if archive.compared else "with nothing to compare it with"
        console.say(f"{archive.name}: {archive.size:,} bytes, sha256 {archive.sha256} ({known})")


def report(
    dataset: Dataset,
    out: Path,
    json_output: bool,
    following: str,
    findings: Sequence[dict[str, str]] = (),
    lines: Sequence[str] = (),
    summary: dict[str, Any] | None = None,
) -> None:
    """The end of a command: what the data set holds, as JSON or in lines, and the command that comes next."""
    counts = {split: len(dataset.split(split)) for split in dataset.split_sha256}
    if json_output:
        console.result_json(
            {
                "dataset": str(out),
                "name": dataset.name,
                "classes": list(dataset.classes),
                "splits": counts,
                "protocol": list(dataset.protocol),
                "findings": list(findings),
                **({"summary": summary} if summary else {}),
            }
        )
    else:
        listed = ", ".join(f"{split} {count:,}" for split, count in counts.items())
        console.result(f"{out}: {listed}; {counted(len(dataset.classes) - 1, 'class')} and background")
        for note in (*dataset.protocol, *lines):
            console.result(f"  {note}")
    console.say(f"next: {following}")
