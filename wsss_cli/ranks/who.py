"""Which of the processes of a job this one is, by what torchrun or Slurm's srun say. Nothing here loads torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from wsss_cli.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
PORT = 29_500  # torchrun's; by the job id under Slurm, so that two jobs of a node do not meet


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes.

    Attributes:
        rank: 0 .. world - 1; rank 0 writes and speaks.
        local: its number among those of this machine, which is that of its GPU.
        local_world: how many those are.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1

    def part(self, count: int) -> range:
        """This rank's places of 0 .. count - 1: ranks have neighbouring places, the first ones one more."""
        return range(self._begin(count, self.rank), self._begin(count, self.rank + 1))

    def _begin(self, count: int, rank: int) -> int:
        size, more = divmod(count, self.world)
        return rank * size + min(rank, more)


@lru_cache(maxsize=1)
def here() -> Ranks:
    """This process among those of its job, by its environment.

    Raises:
        UsageError: what the environment says makes no sense.
    """
    return ranks_of(os.environ)


_by_itself = False  # a rank does one thing at a time


def works_alone() -> bool:
    """Whether nothing is to be told to other ranks: there are none, or this one does what they wait for."""
    return _by_itself or here().world == 1


def turns_of(count: int) -> range:
    """Places of 0 .. count - 1 that are this rank's where ranks take turns: every one where it works alone."""
    return range(count) if works_alone() else range(here().rank, count, here().world)


def cores_here() -> int:
    """Processor cores that this rank may use: its share of those of the machine, all of them while others wait.

    What a variable such as OMP_NUM_THREADS grants is granted to each process.
    """
    from wsss_cli.processes import cores  # here: it takes long, and most commands ask for the rank alone

    return cores(among=1 if works_alone() else here().local_world)


@contextlib.contextmanager
def by_itself() -> Iterator[None]:
    """Within it the others wait."""
    global _by_itself
    _by_itself = True
    try:
        yield
    finally:
        _by_itself = False


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """What an environment says.

    torchrun's variables are taken before srun's. Slurm's variables of a batch script without srun mean one process.

    Raises:
        UsageError: a variable is missing or no number, or a rank is not below the number of ranks.
    """
    for names in (TORCHRUN, SRUN):
        if names[0] in environment and names[1] in environment:
            break
    else:
        return Ranks()
    rank, world = (_number(environment, name) for name in names[:2])
    local, local_world = _number(environment, names[2], "0"), _number(environment, names[3], "1")
    if not 0 <= rank < world or local < 0:
        raise UsageError(f"{names[0]}={rank} and {names[1]}={world} contradict each other", HINT)
    return Ranks(rank, world, local, max(local_world, local + 1))


def _number(environment: Mapping[str, str], name: str, otherwise: str = "") -> int:
    """The whole number that a variable is; of Slurm's lists, such as 4(x2),3, the first.

    Raises:
        UsageError: it is none, with its name.
    """
    text = environment.get(name, otherwise)
    first = text.split("(")[0].split(",")[0] if name.startswith("SLURM") else text
    try:
        return int(first)
    except ValueError:
        raise UsageError(f"{name}={text!r} in the environment is no whole number", HINT) from None


HINT = "start by torchrun, srun or --gpus; without them unset these variables"


def meeting_point(environment: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT where srun leaves them out: the first machine of the job, a port by the job's id.

    Raises:
        UsageError: MASTER_PORT is no port.
    """
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
    port = environment.get("MASTER_PORT") or str(PORT + _number(environment, "SLURM_JOB_ID", "0") % 10_000)
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise UsageError(f"MASTER_PORT={port!r} in the environment is no port", "1 to 65535, or unset it")
    return {"MASTER_ADDR": environment.get("MASTER_ADDR") or first_node(nodes) or "127.0.0.1", "MASTER_PORT": port}


def first_node(nodes: str) -> str:
    """The first machine of Slurm's list: of `gpu[03-05,9],cpu1` it is `gpu03`."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.split(",")[0]
    number, _, _ = rest.partition("]")
    return head + number.split(",")[0].split("-")[0]
