"""Writes that fail one by one, scarce files and memory, and many processes at one place.

Each ends in words and the right code, and leaves nothing that keeps the same command from ending well afterwards. `make
faults` does to the whole pipeline what is done here to `prepare`.
"""

import os
import resource
import shutil
import subprocess
import sys
from functools import partial

import command
import pytest
from test_storm import COMMAND, PREPARE, results

STORM = bool(os.environ.get("WSSS_STORM"))
HOOK = """
import errno, os, sys
count, here = [0], os.environ.get("WSSS_TEST_PLACE", "/nowhere")
def hook(event, arguments):
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    elif event in ("os.rename", "os.mkdir"):
        path, writes = arguments[0], True
    else:
        return
    if writes and isinstance(path, str) and os.path.abspath(path).startswith(here + os.sep):
        count[0] += 1
        if count[0] == int(os.environ["WSSS_TEST_FAIL_AT"]):
            raise OSError(int(os.environ["WSSS_TEST_ERRNO"]), os.strerror(int(os.environ["WSSS_TEST_ERRNO"])), path)
if os.environ.get("WSSS_TEST_FAIL_AT"):
    sys.addaudithook(hook)
"""
BREAK = """
import builtins, io, os
plain, opened, here = io.open, [0], os.environ.get("WSSS_TEST_PLACE", "/nowhere")
class Half(io.FileIO):
    begun = False
    def write(self, data):
        if self.begun:
            raise OSError(int(os.environ["WSSS_TEST_ERRNO"]), os.strerror(int(os.environ["WSSS_TEST_ERRNO"])))
        self.begun = True
        return super().write(memoryview(data)[: max(1, len(data) // 2)])
def breaks(file, mode):
    path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(os.fspath(file))
    if not path.startswith(here + os.sep) or not set(mode) & set("wax+"):
        return False
    opened[0] += 1
    return opened[0] == int(os.environ["WSSS_TEST_BREAK_AT"])
def broken(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    if not breaks(file, mode):
        return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
    buffer = io.BufferedWriter(Half(file, mode.replace("b", "").replace("t", ""), closefd, opener))
    return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)
if os.environ.get("WSSS_TEST_BREAK_AT"):
    builtins.open = io.open = broken
"""
FAIL_AT = range(1, 61) if STORM else (1, 2, 3, 5, 8, 13)
BREAK_AT = range(1, 31) if STORM else (1, 4, 19)
FULL, BROKEN = 28, 5  # ENOSPC, EIO
MEMORY = (150, 300, 600, 1200, 2400) if STORM else (150, 600, 1200)  # MiB of addresses
FILES = (16, 20, 24, 32, 48, 64, 128, 256) if STORM else (16, 20, 24, 64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with all that the pipeline makes, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert command.wsss(folder, *PREPARE).returncode == 0
    if STORM:
        assert command.wsss(folder, *COMMAND).returncode == 0
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder in which the pipeline is disturbed again and again."""
    folder = tmp_path_factory.mktemp("chain")
    assert command.wsss(folder, *PREPARE).returncode == 0
    return folder


def ended_in_words(done, codes=(0, 3)):
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr and "a bug" not in done.stderr
    if done.returncode:
        assert done.stderr.count("error: ") == 1


def prepared_well(whole, folder, done):
    """A disturbed `prepare` ended in words; where it failed, the same command ends with the bytes of a whole one."""
    ended_in_words(done)
    if done.returncode:
        assert command.wsss(folder, *PREPARE).returncode == 0
    assert data_of(folder / "data") == data_of(whole / "data")


def disturb(whole, chain, run):
    """Run the disturbed pipeline where it stands; a whole one is compared, taken away, and disturbed from its begin."""
    done = run(chain)
    ended_in_words(done)
    if done.returncode == 0:
        assert results(chain) == results(whole)
        shutil.rmtree(chain / "runs")
        done = run(chain)
        ended_in_words(done)
    return done


def data_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".prepare.lock"]
    return {file.relative_to(folder): file.read_bytes() for file in files}


def failing(folder, way, at, number, *arguments):
    """Run a command whose `at`-th write fails (way FAIL), or whose `at`-th file ends in the middle (way BREAK)."""
    (folder.parent / "hook").mkdir(exist_ok=True)
    hook = folder.parent / "hook" / "sitecustomize.py"
    hook.write_text(HOOK + BREAK)
    more = {"WSSS_TEST_PLACE": str(folder), f"WSSS_TEST_{way}_AT": str(at), "WSSS_TEST_ERRNO": str(number)}
    return command.wsss(folder, *arguments, **command.hooked(hook), **more)


def error_of(at):
    return FULL if at % 2 else BROKEN


@pytest.mark.parametrize(
    ("way", "at", "number"),
    [("FAIL", at, number) for at in FAIL_AT for number in ((FULL, BROKEN) if STORM else (error_of(at),))]
    + [("BREAK", at, error_of(at)) for at in BREAK_AT],
)
def test_a_write_of_prepare_that_fails(whole, tmp_path, way, at, number):
    folder = tmp_path / "work"
    folder.mkdir()
    done = failing(folder, way, at, number, *PREPARE)
    prepared_well(whole, folder, done)
    if done.returncode:
        assert ("No space left" if number == FULL else "Input/output error") in done.stderr


@pytest.mark.skipif(not STORM, reason="make faults runs it")
@pytest.mark.parametrize("at", [*range(1, 40, 3), *range(40, 150, 10)])
@pytest.mark.parametrize("way", ["FAIL", "BREAK"])
def test_a_write_of_the_pipeline_that_fails(whole, chain, way, at):
    disturb(whole, chain, lambda folder: failing(folder, way, at, error_of(at), *COMMAND))


@pytest.mark.skipif(not STORM, reason="make faults runs it")
@pytest.mark.parametrize("kibibytes", [1, 4, 16, 64, 256, 1024, 4096, 16384])
def test_files_of_the_pipeline_that_end_at_a_size(whole, chain, kibibytes):
    """The system itself writes up to the limit and then fails, in worker processes too."""
    done = disturb(whole, chain, lambda folder: run_limited(folder, resource.RLIMIT_FSIZE, kibibytes * 1024, COMMAND))
    if done.returncode:
        assert "File too large" in done.stderr


def limited(kind, value):
    resource.setrlimit(kind, (value, value))


def run_limited(folder, kind, value, arguments):
    return subprocess.run(
        [sys.executable, "-m", "wsss_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=command.environment(folder, OMP_NUM_THREADS="1"),
        preexec_fn=partial(limited, kind, value),
        timeout=command.PATIENCE,
    )


@pytest.mark.parametrize("files", FILES)
def test_few_open_files(whole, tmp_path, files):
    prepared_well(whole, tmp_path, run_limited(tmp_path, resource.RLIMIT_NOFILE, files, PREPARE))


@pytest.mark.parametrize("mebibytes", MEMORY)
def test_little_memory(whole, tmp_path, mebibytes):
    prepared_well(whole, tmp_path, run_limited(tmp_path, resource.RLIMIT_AS, mebibytes * 2**20, PREPARE))


@pytest.mark.skipif(not STORM, reason="make faults runs it")
@pytest.mark.parametrize(
    ("kind", "value"),
    [(resource.RLIMIT_NOFILE, files) for files in FILES]
    + [(resource.RLIMIT_AS, mebibytes * 2**20) for mebibytes in (600, 1200, 1800, 2400, 3000, 3600)],
)
def test_a_pipeline_within_limits(whole, chain, kind, value):
    disturb(whole, chain, lambda folder: run_limited(folder, kind, value, COMMAND))


@pytest.mark.parametrize("count", [2, 8])
def test_processes_at_one_place(whole, tmp_path, count):
    """One of them has the place; the others say so, or find all done."""
    every = [command.start(tmp_path, *PREPARE) for _ in range(count)]
    talks = [process.communicate(timeout=command.PATIENCE)[1] for process in every]
    codes = [process.returncode for process in every]
    assert set(codes) <= {0, 6} and 0 in codes, talks
    assert command.wsss(tmp_path, *PREPARE).returncode == 0
    assert data_of(tmp_path / "data") == data_of(whole / "data")


@pytest.mark.skipif(not STORM, reason="make faults runs it")
@pytest.mark.parametrize("count", [2, 8])
def test_pipelines_at_one_place(whole, tmp_path, count):
    assert command.wsss(tmp_path, *PREPARE).returncode == 0
    every = [command.start(tmp_path, *COMMAND) for _ in range(count)]
    talks = [process.communicate(timeout=1800)[1] for process in every]
    codes = [process.returncode for process in every]
    assert set(codes) <= {0, 6} and 0 in codes, talks
    assert command.wsss(tmp_path, *COMMAND).returncode == 0
    assert results(tmp_path) == results(whole)


@pytest.mark.skipif(not STORM, reason="make faults runs it")
def test_the_disturbed_pipeline_ends_with_the_bytes_of_an_undisturbed_one(whole, chain):
    assert command.wsss(chain, *COMMAND).returncode == 0
    assert results(chain) == results(whole)
    assert list(chain.rglob(".*.part")) == []
