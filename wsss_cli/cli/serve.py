"""`wsss serve`."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import threading
from typing import Annotated

import typer

from wsss_cli.cli import console, stage
from wsss_cli.cli.options import (
    RUNS,
    BestOption,
    DeviceOption,
    MsFlipOption,
    NetworkArgument,
    RunsOption,
    WeightsOption,
)
from wsss_cli.errors import ResourceError, UsageError
from wsss_cli.talk import counted

LOOK_S = 0.2
ENDS = (signal.SIGINT, signal.SIGTERM)
"""Signals by which whoever started the server, or its manager, ends it: it has done what it was to do."""
END_S = 15.0
"""How long photographs in hand may take once a signal has come."""


def serve(
    run: NetworkArgument = None,
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 is open to everybody.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    ms_flip: MsFlipOption = False,
    best: BestOption = False,
    weights: WeightsOption = None,
    max_mb: Annotated[int, typer.Option(min=1, max=2048, help="Largest file, megabytes.")] = 20,
    max_megapixels: Annotated[int, typer.Option(min=1, max=178, help="Largest photograph.")] = 25,
    per_minute: Annotated[int, typer.Option(min=0, max=10**6, help="Photographs from one address; 0: no limit.")] = 60,
    runs: RunsOption = RUNS,
    device: DeviceOption = "auto",
) -> None:
    """Answer over HTTP: a page to drop photographs on, and masks for programs.

    \b
    wsss serve
    wsss serve runs/train-toy-1a2b3c4d --port 8080
    wsss serve --max-mb 10 --per-minute 30

    POST /predict takes the bytes of a photograph and answers with JSON (classes, their shares, mask, overlay), or with
    ?as=mask or ?as=overlay with that picture: curl --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?as=mask'

    One photograph is segmented at a time. There is no password: whoever reaches the address may use it, which at
    127.0.0.1 are the users of this machine. Ctrl-C (or SIGTERM) ends it, with exit code 0.

    Needs: pip install 'wsss[serve]'
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise UsageError("wsss serve needs starlette and uvicorn, which are not installed", "pip install 'wsss[serve]'")
    import uvicorn

    from wsss_cli.inference.network import Which
    from wsss_cli.stages.serve import Limits, application

    run = run or stage.newest_training(runs)
    with _listening(host, port) as sock, stage.working(device, run.parent) as ctx:
        network = stage.network_of(run, ctx, Which("best" if best else "latest", weights or ""))
        limits = Limits(megabytes=max_mb, megapixels=max_megapixels, per_minute=per_minute)
        web = application(network, run.name, limits, ctx, ms_flip=ms_flip)
        address, number = sock.getsockname()[:2]
        console.result(f"http://{f'[{address}]' if ':' in address else address}:{number}")
        console.say("Ctrl-C ends it")
        settings = uvicorn.Config(web, log_level="warning", limit_concurrency=100, timeout_keep_alive=5, lifespan="off")
        server = uvicorn.Server(settings)
        worker = threading.Thread(target=server.run, args=([sock],), daemon=True)  # signals are for this thread
        worker.start()
        try:
            while worker.is_alive() and ctx.stop.signal not in ENDS:
                ctx.stop.check()
                worker.join(LOOK_S)
        finally:
            server.should_exit = True
            worker.join(END_S)
        served = f"{counted(web.state.served, 'photograph')} served"
        if ctx.stop.signal not in ENDS:
            raise ResourceError(f"the server ended by itself; {served}", "start it again")
        console.say(f"stopped; {served}")


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: the port is taken, or the address is none of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        number = error.errno or 0  # below 0: of looking up a name
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise UsageError(f"cannot listen at {host}, port {port}: {reason}", "give another --port or --host") from error
