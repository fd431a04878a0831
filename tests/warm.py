"""A `wsss` that starts at once, for tests that start many: a process that has loaded everything forks each command.

`python warm.py serve SOCKET` is that process, until its stdin ends; `python warm.py run SOCKET ARGUMENTS` hands it a
command, with its streams, folder and variables, passes signals on, and ends as it does.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def warm_wsss(folder, environment):
    """An executable folder/wsss for as long as the body runs.

    Args:
        environment: variables of the process that forks.
    """
    address, file = str(folder / "warm.socket"), folder / "wsss"
    server = started(address, environment)
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} run {address} "$@"\n')
    file.chmod(0o755)
    try:
        yield file
    finally:
        server.kill()
        server.wait()


def started(address, environment):
    """The process that forks, listening at `address`."""
    server = subprocess.Popen([sys.executable, __file__, "serve", address], env=environment, stdin=subprocess.PIPE)
    until = time.monotonic() + 240
    while not Path(address).exists():
        assert server.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return server


def serve(address):
    for name in ("wsss_cli.cli.app", "wsss_cli.stages.pipeline", "wsss_cli.stages.shards", "wsss_cli.cli.eval_sources"):
        importlib.import_module(name)
    for name in ("timm", "torch.distributed.rendezvous", "wsss_cli.report.tables", "wsss_cli.report.pictures"):
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(16)
    Path(address + ".new").rename(address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(attend(client))
        client.close()


def attend(client):
    message, fds, _, _ = socket.recv_fds(client, 2**20, 3)
    arguments, variables, folder = json.loads(message)
    pid = os.fork()
    if pid == 0:
        client.close()
        os.setpgid(0, 0)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.clear()
        os.environ.update(variables)
        if threads := variables.get("OMP_NUM_THREADS"):
            importlib.import_module("torch").set_num_threads(int(threads))
        os.chdir(folder)
        sys.argv = ["wsss", *arguments]
        from wsss_cli.__main__ import main

        code = 1
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    for fd in fds:
        os.close(fd)
    with contextlib.suppress(OSError):  # the client was killed
        client.sendall(struct.pack("i", pid))
        ready, _, _ = select.select([os.pidfd_open(pid), client], [], [])
        if client in ready:  # it was killed
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        client.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
    return 0


def run(address, arguments):
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    message = json.dumps([arguments, dict(os.environ), str(Path.cwd())]).encode()
    socket.send_fds(server, [message], [0, 1, 2])
    (pid,) = struct.unpack("i", server.recv(4))
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    (code,) = struct.unpack("i", server.recv(4))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(run(sys.argv[2], sys.argv[3:]))
