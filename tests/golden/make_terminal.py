"""What a short run on toy data shows, on terminals of three widths and in a log, and the main help: golden files.

`python make_terminal.py` writes terminal-60.txt, -80, -120, terminal-log.txt and help.txt beside it; read the
difference before it is committed. Figures, times and rates are masked: they are this machine's.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from command import environment, executable  # noqa: E402

WIDTHS = {"60": 60, "80": 80, "120": 120, "log": 0}
SIZES = "--set classifier.crop=64 --set classifier.batch=4 --set train.crop=64 --set train.batch=4"
SMALL = f"{SIZES} --set cam.scales=[1.0] --set eval.scales=[1.0]"
SAME = "--set classifier.precision=fp32 --set train.precision=fp32"  # on every processor
COMMANDS = [
    "prepare toy --images 6 --val 6 --size 64 --seed 1",
    f"run --preset toy --iters 6 --set classifier.iters=6 {SMALL} {SAME} --device cpu",
    "eval --device cpu --metrics iou",
    "table",
]


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, text in shown(Path(folder), WIDTHS).items():
            (HERE / f"terminal-{name}.txt").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "wsss_cli", "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=environment(Path(folder), COLUMNS="80"),
        )
    (HERE / "help.txt").write_text(done.stdout, encoding="utf-8")


def shown(folder, widths):
    """What the commands show, by the name of each width, masked; each in a folder of its own."""
    variables = environment(folder, OMP_NUM_THREADS="1", TERM="xterm", LC_ALL="C.UTF-8")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        variables.pop(name, None)
    texts, wsss = {}, executable(folder)
    for name, width in widths.items():
        (folder / name).mkdir()
        texts[name] = ""
        for command in COMMANDS:
            words = [str(wsss), *command.split()]
            place = (words, folder / name, variables)
            record = on_terminal(*place, width) if width else in_log(*place)
            texts[name] += f"$ wsss {command}\n{masked(record)}\n"
    return texts


def in_log(words, folder, variables):
    """What a command writes into a file that takes both streams."""
    done = subprocess.run(
        words, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


def on_terminal(words, folder, variables, width):
    """What stands on a terminal when a command has ended; no row that was redrawn is longer than the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(words, cwd=folder, env=variables, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(master)
    assert process.wait(600) == 0, written.decode()
    return screen(written.decode(), width)


def screen(written, width):
    """The lines that text with the signs of Rich leaves: up, erase, to the first column; colours count nothing."""
    lines, row, column = [""], 0, 0
    for sign in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if sign == "\r":
            column = 0
        elif sign == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif sign.startswith("\x1b"):
            count = int(sign[2:-1]) if sign[2:-1].isdigit() else 1
            if sign.endswith("A"):
                row = max(row - count, 0)
            elif sign.endswith("K"):
                assert len(lines[row]) <= width or "━" not in lines[row], lines[row]
                lines[row] = "" if sign == "\x1b[2K" else lines[row][:column]
            else:
                assert sign.endswith(("m", "h", "l")), sign
        else:
            lines[row] = lines[row][:column].ljust(column) + sign + lines[row][column + len(sign) :]
            column += len(sign)
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def masked(text):
    """Without what another machine, or another moment, shows otherwise."""
    took = r"about [^\n]* left for(?: |\n)all(?:.|\n)*?train[ \n]tells\n"
    text = re.sub(took, "<about how long all steps take>\n", text)
    lines = []
    for line in text.splitlines():
        progress = re.match(r"(.*?)  +(\d+)/(\d+)  ", f"{line}  ")
        if line.startswith("still at work") or (progress and progress[2] not in ("0", progress[3])):
            continue
        line = re.sub(r"(-[a-z0-9]+-)[0-9a-f]{8}\b", r"\1<identity>", line)
        line = re.sub(r"\d+\.\d+e[+-]\d+", "#", line)
        line = re.sub(r"(?<![\d.])\d+\.\d+(?![\d.])", "#", line)
        line = re.sub(r"\b\d+ ?(s|min|h)\b( left)?", r"<time>\2", line)
        line = re.sub(r"\d+ %(, loss|, #|$| +#)", r"# %\1", re.sub(r"data wait \d+ %", "data wait # %", line))
        line = re.sub(r"CPU,\s+\d+ threads?", "CPU", line)
        line = re.sub("[━╸╺]+", "━━━", re.sub("[─-]{4,}", "----", line))
        lines.append(re.sub(r"(?<=\S) {2,}", "  ", line))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
