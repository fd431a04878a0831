"""A run that several processes make together, each a shard of its items. Nothing here loads torch.

What a shard knows of itself lies in the run's folder `shards`: its record, its lock and its log.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from wsss_cli.config.forms import Form, NewerError, read_form, write_form
from wsss_cli.engine.records import Attempt, Lost
from wsss_cli.errors import DataError, UsageError
from wsss_cli.locks import is_locked
from wsss_cli.talk import say

FOLDER = "shards"
MOST = 10_000
RUNS_SHOWN = 12
LOOKS = 3
ShardState = Literal["working", "killed", "preempted", "failed", "done"]  # killed: shown, never written


@dataclass(frozen=True, order=True)
class Shard:
    """Part `number`, 1 .. `of`, of the items of a run."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, name: str) -> bool:
        """Whether an item belongs to it: by the SHA-256 of its id alone, whatever other items there are."""
        return shard_of(name, self.of) == self.number

    def file(self, run: Path, ending: str) -> Path:
        """shards/03-of-16.<ending> in a run directory."""
        return run / FOLDER / f"{self.number:0{len(str(self.of))}}-of-{self.of}.{ending}"


class ShardRecord(Form):
    """shards/03-of-16.json: how far a shard got, and what it lost."""

    number: int
    of: int
    state: ShardState
    items: int = 0
    attempts: tuple[Attempt, ...] = ()
    lost: tuple[Lost, ...] = Field(default=())

    @property
    def shard(self) -> Shard:
        return Shard(self.number, self.of)


def shard_of(name: str, of: int) -> int:
    """The shard, 1 .. `of`, that an id belongs to."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()) % of + 1


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that `3/16` means, or, by Slurm's variables, `array`.

    Raises:
        UsageError: it means none.
    """
    if text == "array":
        return _array_task(environment)
    number, slash, of = text.partition("/")
    if not (slash and all(part.isascii() and part.isdigit() and len(part) < 10 for part in (number, of))):
        raise UsageError(
            f"--shard {text}: this names no shard", "3/16 is the third of sixteen; array takes it from Slurm"
        )
    shard = Shard(int(number), int(of))
    if not 1 <= shard.number <= shard.of <= MOST:
        raise UsageError(f"--shard {text}: shards of {of} are 1/{of} to {of}/{of}, of {MOST} at most")
    return shard


def _array_task(environment: Mapping[str, str]) -> Shard:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
    if "SLURM_ARRAY_TASK_ID" not in environment:
        raise UsageError(
            "--shard array: SLURM_ARRAY_TASK_ID is not set", "start it in a job with sbatch --array, or give 3/16"
        )
    try:
        task, count, first = (int(environment[name]) for name in names)
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        last = int(environment.get("SLURM_ARRAY_TASK_MAX", str(first + (count - 1) * step)))
    except (KeyError, ValueError) as error:
        named = isinstance(error, KeyError)
        what = f"{error.args[0]} is not set" if named else f"{str(error).rpartition(': ')[2]} is no whole number"
        raise UsageError(
            f"--shard array: {', '.join(names)} do not say which task this is: {what}",
            "start it in a job with sbatch --array, or give 3/16",
        ) from None
    regular = step >= 1 and last == first + (count - 1) * step
    if not regular or (task - first) % step or not first <= task <= last:
        raise UsageError(
            f"--shard array: task {task} of {count}, {first} to {last}, is no array without gaps",
            "give single tasks their shard, from 1 on: --shard $SLURM_ARRAY_TASK_ID/16",
        )
    return Shard((task - first) // step + 1, count)


def write_shard(run: Path, record: ShardRecord) -> None:
    """Write a shard's record, whole or not at all."""
    write_form(record.shard.file(run, "json"), record)


def read_shard(run: Path, shard: Shard) -> ShardRecord | None:
    """A shard's record; None: there is none, or it is damaged, which is said.

    Raises:
        NewerError: it was written by a newer version.
    """
    file = shard.file(run, "json")
    if not file.is_file():
        return None
    try:
        return read_form(file, ShardRecord)
    except NewerError:
        raise
    except DataError as error:
        say(f"{error.message}: this shard counts as not done")
        return None


def read_shards(run: Path) -> list[ShardRecord]:
    """The records of all shards of a run, in order.

    Raises:
        NewerError: one was written by a newer version.
    """
    records = [read_shard(run, shard) for shard in _named(run, "json")]
    return [record for record in records if record is not None]


def _named(run: Path, ending: str) -> list[Shard]:
    shards = []
    for file in (run / FOLDER).glob(f"*-of-*.{ending}"):
        number, _, of = file.stem.partition("-of-")
        if number.isdigit() and of.isdigit() and not file.name.startswith("."):
            shards.append(Shard(int(number), int(of)))
    return sorted(shards)


def shards_at_work(run: Path) -> list[Shard]:
    """Shards whose lock a process holds, and not only for the moment in which it looks, too."""
    shards = _named(run, "lock")
    for look in range(LOOKS):
        if look and shards:
            time.sleep(0.1)
        shards = [shard for shard in shards if is_locked(shard.file(run, "lock"))]
    return shards


def remove_shards(run: Path) -> None:
    """Forget how far shards got, as what they made is not there any more. None may be at work."""
    for shard in _named(run, "json"):
        shard.file(run, "json").unlink(missing_ok=True)


def missing_shards(records: list[ShardRecord], of: int) -> list[int]:
    """Numbers of the shards of `of` that are not done."""
    done = {record.number for record in records if record.of == of and record.state == "done"}
    return [number for number in range(1, of + 1) if number not in done]


def all_done(records: list[ShardRecord]) -> bool:
    """Whether the shards of one division are all done."""
    return any(not missing_shards(records, of) for of in {record.of for record in records})


def hold_to_division(run: Path, shard: Shard) -> None:
    """See that a run is not divided in two ways at once.

    Raises:
        UsageError: shards of another number have begun and are not all done.
    """
    records = read_shards(run)
    if all_done(records):
        return
    for of in sorted({record.of for record in records} - {shard.of}):
        raise UsageError(
            f"--shard {shard}: {run} is divided by {of}; {how_many_done(records, of)}",
            f"go on with --shard I/{of}, finish it without --shard, or, while none is at work, remove {run / FOLDER} "
            "to divide it anew: what is there stays",
        )


def how_many_done(records: list[ShardRecord], of: int) -> str:
    """'12 of 16 shards are done; missing 3, 7 to 9'."""
    missing = missing_shards(records, of)
    count = f"{of - len(missing)} of {of} shards are done"
    return f"{count}; missing {_in_runs(missing)}" if missing else count


def _in_runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in a line that can be read: three neighbours or more as a run, of many runs the first."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = [(" to " if run[-1] > run[0] + 1 else ", ").join(map(str, run)) for run in runs[:RUNS_SHOWN]]
    return ", ".join(shown) + (f", ... ({len(numbers):,} in all)" if len(runs) > RUNS_SHOWN else "")


def state_of_shard(run: Path, record: ShardRecord) -> ShardState:
    """What its record says, and 'killed' where it says 'working' and no process holds its lock."""
    if record.state == "working" and not is_locked(record.shard.file(run, "lock")):
        return "killed"
    return record.state


def count_by_shard(names: Iterable[str], of: int) -> Counter[int]:
    """How many of some items each shard has."""
    return Counter(shard_of(name, of) for name in names)
