"""A `wsss` that starts at once, for tests that start many: a process that has loaded everything forks each command.

`python warm.py SOCKET` is that process, until its stdin ends. `Forked` is a command that a test starts itself; what is
started otherwise runs handed.py. Ranks of `--gpus` are forked too: what starts them takes `SOCKET.python` for its
interpreter. The command `python SCRIPT ARGUMENTS` runs a script in place of `wsss`.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import handed


class Forked:
    """A command in a session of its own: what tests use of subprocess.Popen.

    Args:
        streams: stdout and stderr, each subprocess.PIPE, DEVNULL or a file; stderr may be STDOUT.
    """

    def __init__(self, address, arguments, folder, environment, streams):
        self.args, self.returncode = list(arguments), None
        ends, ours = [os.open(os.devnull, os.O_RDONLY)], []
        for stream in streams:
            reading = None
            if stream == subprocess.PIPE:
                reading, writing = os.pipe()
            elif stream == subprocess.STDOUT:
                writing = os.dup(ends[-1])
            else:
                writing = os.open(os.devnull, os.O_WRONLY) if stream == subprocess.DEVNULL else os.dup(stream.fileno())
            ends.append(writing)
            ours.append(None if reading is None else os.fdopen(reading, encoding="utf-8"))
        self.stdout, self.stderr = ours
        self._server, self.pid = handed.handed(address, arguments, environment, folder, ends)
        for end in ends:
            os.close(end)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.communicate()

    def poll(self):
        return self._code(0)

    def wait(self, timeout=None):
        if self._code(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _code(self, timeout):
        if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
            (self.returncode,) = struct.unpack("i", self._server.recv(4))
            self._server.close()
        return self.returncode

    def communicate(self, timeout=None):
        until = time.monotonic() + (timeout or 1e6)
        streams = [(at, s) for at, s in enumerate((self.stdout, self.stderr)) if s is not None and not s.closed]
        texts = [None, None]

        def read(at, stream):
            texts[at] = ""
            with stream:
                for line in stream:
                    texts[at] += line

        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(until - time.monotonic(), 0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout, *texts)
        self.wait(max(until - time.monotonic(), 0))
        return tuple(texts)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def started(address, environment):
    """The process that forks, listening at `address`."""
    shim = Path(f"{address}.python")
    shim.write_text(
        f"""#!/bin/sh
if [ "$1 $2" = "-m wsss_cli" ]; then shift 2; exec {sys.executable} -S -E {handed.__file__} {address} "$@"; fi
exec {sys.executable} "$@"
"""
    )
    shim.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], env=environment, stdin=subprocess.PIPE)
    until = time.monotonic() + 240
    while not Path(address).exists():
        assert server.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return server


def serve(address):
    """Load everything, then fork the commands that clients ask for until stdin ends."""
    for name in ("wsss_cli.cli.app", "wsss_cli.stages.pipeline", "wsss_cli.stages.shards", "wsss_cli.cli.eval_sources"):
        importlib.import_module(name)
    for name in ("timm", "torch.distributed.rendezvous", "wsss_cli.report.tables", "wsss_cli.report.pictures"):
        importlib.import_module(name)
    for module, *_ in sys.modules["wsss_cli.cli.app"].COMMANDS.values():
        importlib.import_module(f"wsss_cli.cli.{module}")
    build, load = (sys.modules[f"wsss_cli.{name}"] for name in ("models.build", "config.load"))
    # much of torch is loaded when a network is first built
    build.build_segmentor(load.load_preset("toy").train, 6, build.torch.device("cpu"))
    importlib.import_module("multiprocessing.spawn")  # which takes the interpreter as it is now for its processes
    sys.executable = address + ".python"
    os.fsync = lambda file: None  # as in conftest.py
    gc.freeze()  # else a command's collector touches, and so copies, all that is loaded: a second where it trains
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(16)
    Path(address + ".new").rename(address)
    commands = {}  # by pidfd: process id, and connection to who waits for it
    while True:
        waited = [listener, sys.stdin, *commands, *(client for _, client in commands.values())]
        ready = select.select(waited, [], [])[0]
        for pidfd, (pid, client) in list(commands.items()):
            if client in ready or sys.stdin in ready:  # who waited was killed
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            if pidfd in ready:
                end(pidfd, *commands.pop(pidfd))
        if sys.stdin in ready:
            return 0
        if listener in ready:
            with contextlib.suppress(OSError, struct.error):  # the client was killed
                client, _ = listener.accept()
                begin(client, address, commands, listener)


def end(pidfd, pid, client):
    """Tell who waits how a command has ended."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with client, contextlib.suppress(OSError):
        client.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))


def begin(client, address, commands, listener):
    """Fork a command that a client asks for, and tell it the process id."""
    message, fds, _, _ = socket.recv_fds(client, 2**20, 3)
    (size,) = struct.unpack("i", message[:4])
    while len(message) < size + 4:
        message += client.recv(2**20)
    arguments, variables, folder, cores = json.loads(message[4:])
    pid = os.fork()
    if pid == 0:
        for other in (listener, client, *(client for _, client in commands.values())):
            other.close()
        for pidfd in commands:
            os.close(pidfd)
        become(arguments, variables, folder, cores, fds)
    for fd in fds:
        os.close(fd)
    commands[os.pidfd_open(pid)] = pid, client
    if "RANK" in variables:
        Path(f"{address}.{variables['RANK']}").write_text(str(pid))
    client.sendall(struct.pack("i", pid))


def become(arguments, variables, folder, cores, streams):
    """Be the command, in a process that was forked for it; never returns."""
    code = 1
    try:
        os.setsid()
        os.sched_setaffinity(0, cores)
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.clear()
        os.environ.update(variables)
        os.environ.pop("WSSS_AGENT", None)  # which is no parent of this one; `run` ends with it
        if threads := variables.get("OMP_NUM_THREADS"):
            importlib.import_module("torch").set_num_threads(int(threads))
        os.chdir(folder)
        if hook := variables.get("WSSS_TEST_HOOK"):
            exec(Path(hook).read_text(), {})
        if arguments[:1] == ["python"]:
            sys.argv = arguments[1:]
            runpy.run_path(arguments[1], run_name="__main__")
        else:
            sys.argv = ["wsss", *arguments]
            importlib.import_module("wsss_cli.__main__").main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
