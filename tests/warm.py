"""A `wsss` that starts at once, for tests that start many: a process that has loaded everything forks each command.

`python warm.py serve SOCKET` is that process, until its stdin ends; `python warm.py run SOCKET ARGUMENTS` hands it a
command, with its streams, folder and variables, passes signals on, and ends as it does. `Forked` is a command that a
test starts itself. Ranks of `--gpus` are forked too: what starts them takes `SOCKET.python` for its interpreter.
"""

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
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
        self._server, self.pid = handed(address, arguments, environment, folder, ends)
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
        until, texts = time.monotonic() + (timeout or 1e6), [None, None]

        def read(at, stream):
            with stream:
                texts[at] = stream.read()

        streams = [(at, s) for at, s in enumerate((self.stdout, self.stderr)) if s is not None and not s.closed]
        readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(until - time.monotonic(), 0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(until - time.monotonic(), 0))
        return tuple(texts)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def handed(address, arguments, environment, folder, streams):
    """The connection to the process that forks, and the id of the command that it has forked."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    message = json.dumps([list(arguments), environment, str(folder), sorted(os.sched_getaffinity(0))]).encode()
    socket.send_fds(server, [struct.pack("i", len(message)) + message], streams)
    (pid,) = struct.unpack("i", server.recv(4))
    return server, pid


def started(address, environment):
    """The process that forks, listening at `address`."""
    shim = Path(f"{address}.python")
    shim.write_text(
        f"""#!/bin/sh
if [ "$1 $2" = "-m wsss_cli" ]; then shift 2; exec {sys.executable} -S -E {__file__} run {address} "$@"; fi
exec {sys.executable} "$@"
"""
    )
    shim.chmod(0o755)
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
    for module, *_ in sys.modules["wsss_cli.cli.app"].COMMANDS.values():
        importlib.import_module(f"wsss_cli.cli.{module}")
    importlib.import_module("multiprocessing.spawn")  # which takes the interpreter as it is now for its processes
    sys.executable = address + ".python"
    os.fsync = lambda file: None  # as in conftest.py
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
            os._exit(attend(client, address))
        client.close()


def attend(client, address):
    message, fds, _, _ = socket.recv_fds(client, 2**20, 3)
    (size,) = struct.unpack("i", message[:4])
    while len(message) < size + 4:
        message += client.recv(2**20)
    arguments, variables, folder, cores = json.loads(message[4:])
    pid = os.fork()
    if pid == 0:
        client.close()
        os.setsid()
        os.sched_setaffinity(0, cores)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.environ.clear()
        os.environ.update(variables)
        os.environ.pop("WSSS_AGENT", None)  # which is no parent of this one; `run` ends with it
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
    if "RANK" in variables:
        Path(f"{address}.{variables['RANK']}").write_text(str(pid))
    with contextlib.suppress(OSError):  # the client was killed
        client.sendall(struct.pack("i", pid))
        ready, _, _ = select.select([os.pidfd_open(pid), client], [], [])
        if client in ready:  # it was killed
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        client.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
    return 0


def run(address, arguments):
    if "WSSS_AGENT" in os.environ:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    server, pid = handed(address, arguments, dict(os.environ), Path.cwd(), [0, 1, 2])
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    (code,) = struct.unpack("i", server.recv(4))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[2]) if sys.argv[1] == "serve" else run(sys.argv[2], sys.argv[3:]))
