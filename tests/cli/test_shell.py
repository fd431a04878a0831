"""What every command shares, through the real process: exit codes, one clear line for a failure, stdout for results."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import PATIENCE, environment, python

BROKEN = """
import sys
from wsss_cli.cli import app, console, presets
def fail(*_):
    {body}
presets._brief = fail
sys.argv = ["wsss", "presets", "list", *{arguments!r}]
app.main()
"""


def broken(body, *arguments):
    """A program in which `wsss presets list` fails in the given way."""
    return ("-c", BROKEN.format(body=body, arguments=list(arguments)))


def test_version_and_help_go_to_stdout(wsss):
    version, shown = wsss("--version"), wsss("--help")
    assert (version.returncode, shown.returncode) == (0, 0)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version.stdout)
    for command in (
        "prepare",
        "cam",
        "pseudo",
        "train",
        "eval",
        "infer",
        "run",
        "demo",
        "presets",
        "runs",
        "weights",
        "export",
    ):
        assert f"\n  {command} " in shown.stdout
    assert "\x1b" not in shown.stdout
    assert version.stderr == shown.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["trian"], "No such command 'trian'.", "see wsss --help"),
        (["cam"], "Missing option '--preset' / '-p'.", "see wsss cam --help"),
        (["runs", "list", "--al"], "No such option: --al", "see wsss runs list --help"),
        (["train", "--preset", "toi", "--dry-run"], "there is no preset 'toi'", "did you mean toy?"),
        (["train", "--preset", "toy", "--dry-run", "--set", "train.bach=2"], "unknown key train.bach", "train.batch"),
    ],
)
def test_a_usage_error_is_one_line_and_a_hint_and_exits_2(wsss, arguments, error, hint):
    done = wsss(*arguments)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second


def test_each_bad_value_has_its_line(wsss):
    done = wsss("train", "--preset", "toy", "--dry-run", "--set", "train.iters=0", "--set", "train.batch=no")
    assert done.returncode == 2
    assert [line.split()[:4] for line in done.stderr.splitlines()[:-1]] == [
        ["error:", "preset", "toy:", "train.iters"],
        ["error:", "preset", "toy:", "train.batch"],
    ]


def test_a_failure_with_json_is_one_object_on_stdout(wsss):
    done = wsss("train", "--preset", "toi", "--dry-run", "--json")
    assert done.returncode == 2
    shown = json.loads(done.stdout)
    assert shown.keys() == {"error", "hint", "exit_code"}
    assert (shown["error"], shown["exit_code"]) == ("there is no preset 'toi'", 2)


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("from wsss_cli.errors import DataError; raise DataError('a.png is no image')", 3, "a.png is no image"),
        ("from wsss_cli.errors import BusyError; raise BusyError('runs/x is in use')", 6, "runs/x is in use"),
        ("from wsss_cli.errors import Preempted; raise Preempted('stopped')", 75, "stopped"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise OSError(28, 'No space left on device', 'x.png')", 3, "cannot write x.png: No space left on device"),
        (
            "raise ImportError('libGL.so.1: no such file', name='cv2')",
            3,
            "cv2 cannot be loaded: libGL.so.1: no such file",
        ),
        ("raise ImportError('libGL.so.1: no such file')", 3, "a package cannot be loaded: libGL.so.1: no such file"),
        ("raise ImportError('oops', name='wsss_cli.cli')", 1, "a bug: ImportError: oops"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            3,
            "torchvision cannot be loaded, as it is of another torch: operator torchvision::nms does not exist",
        ),
        ("raise RuntimeError('first\\nsecond')", 1, "a bug: RuntimeError: first second"),
    ],
)
def test_every_failure_has_its_exit_code_and_no_traceback(tmp_path, body, code, error):
    done = python(tmp_path, *broken(body))
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[0] == f"error: {error}"
    assert "Traceback" not in done.stderr
    as_json = python(tmp_path, *broken(body, "--json"))
    shown = json.loads(as_json.stdout)
    assert (as_json.returncode, shown["exit_code"], shown["error"]) == (code, code, error)


def test_the_traceback_of_a_bug_is_in_the_file_that_is_named(tmp_path):
    done = python(tmp_path, *broken("raise RuntimeError('oops')"))
    path = Path(done.stderr.split()[-1])
    assert path.parent == tmp_path
    assert path.read_text().rstrip().endswith("RuntimeError: oops")
    assert "Traceback" in python(tmp_path, *broken("raise RuntimeError('oops')"), WSSS_DEBUG="1").stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = [sys.executable, "-m", "wsss_cli", "presets", "schema"]
    reader, writer = os.pipe()
    os.close(reader)
    there = {"cwd": tmp_path, "env": environment(tmp_path), "timeout": PATIENCE}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, **there)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path):
    body = "print('up', flush=True); import time; time.sleep(30)"
    process = subprocess.Popen(
        [sys.executable, *broken(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    )
    assert process.stdout.readline() == "up\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert talk.startswith("error: interrupted\n")
    assert "Traceback" not in talk


def test_a_name_that_is_not_utf8_is_shown_all_the_same(wsss):
    done = wsss("train", "--preset", os.fsdecode(b"n\xff"), "--dry-run", "--json", PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == "there is no preset 'n\\udcff'"


@pytest.mark.parametrize(("package", "called"), [("PIL", "pillow"), ("pydensecrf", "pydensecrf2"), ("timm", "timm")])
def test_a_package_that_cannot_be_loaded_is_called_as_pip_calls_it(tmp_path, package, called):
    done = python(tmp_path, *broken(f"raise ImportError('no module', name='{package}.deep')"))
    assert done.returncode == 3 and done.stderr.splitlines()[1].endswith(f"pip install --force-reinstall {called}")
