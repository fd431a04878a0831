"""Hands a command to the process that forks (warm.py): `python handed.py SOCKET ARGUMENTS`.

It passes its streams, folder and variables, and signals as they come, and ends as the command does. It loads little,
since it is started for every command.
"""

import json
import os
import signal
import socket
import struct
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def handed(address, arguments, environment, folder, streams):
    """The connection to the process that forks, and the id of the command that it has forked."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    message = json.dumps([list(arguments), environment, str(folder), sorted(os.sched_getaffinity(0))]).encode()
    socket.send_fds(server, [struct.pack("i", len(message)) + message], streams)
    (pid,) = struct.unpack("i", server.recv(4))
    return server, pid


def run(address, arguments):
    """Be the command, as far as who started it can see; its exit code as a shell has it."""
    if "WSSS_AGENT" in os.environ:
        import ctypes  # which takes long, and no other command needs

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    server, pid = handed(address, arguments, dict(os.environ), os.getcwd(), [0, 1, 2])  # noqa: PTH109 (pathlib takes long)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    (code,) = struct.unpack("i", server.recv(4))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
