"""`--gpus N`: torch's elastic agent starts this command again, N times, and passes signals on."""

from __future__ import annotations

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from wsss_cli.errors import Interrupted, Preempted, ResourceError
from wsss_cli.ranks.group import AGENT, timeout_s
from wsss_cli.signals import STOPPING

PATIENCE_S = 20  # that ranks have to save and end, once a signal came or one has failed


def launch(count: int) -> int:
    """Run this process's command line on `count` ranks of this machine, and wait for them.

    Returns:
        0, or the exit code of the first rank that failed or was stopped, which has said why.
    Raises:
        ResourceError: a rank was killed.
    """
    logging.disable()  # the agent writes tracebacks, and the ranks have said all
    patience = int(min(PATIENCE_S, timeout_s()))
    _end_within(patience)
    os.environ[AGENT] = str(os.getpid())
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        local_addr="127.0.0.1",
        signals_to_handle=",".join(number.name for number in STOPPING),
        shutdown_timeout=patience,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "wsss_cli", *sys.argv[1:])
    except ChildFailedError as error:
        return _code(error)
    except SignalException as error:  # the first rank has said it
        return Interrupted.exit_code if error.sigval == signal.SIGINT else Preempted.exit_code
    return 0


def _end_within(seconds: int) -> None:
    """Kill ranks that hang `seconds` after another one failed: torch's agent waits half a minute, without a setting."""
    close = PContext.close

    def sooner(self: PContext, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
        close(self, death_sig, min(timeout, seconds))

    PContext.close = sooner  # type: ignore[method-assign]


def _code(error: ChildFailedError) -> int:
    """The exit code of the first rank that failed.

    Raises:
        ResourceError: a signal ended it.
    """
    rank, failure = min(error.failures.items(), key=lambda pair: (pair[1].timestamp, pair[1].exitcode < 0))
    if failure.exitcode < 0:
        raise ResourceError(
            f"rank {rank} was ended by {signal.Signals(-failure.exitcode).name}",
            "probably for lack of memory; run the same command again to go on",
        )
    return failure.exitcode or 1
