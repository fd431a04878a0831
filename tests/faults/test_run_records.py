"""Records and leftovers of killed work: rebuilt where their content is known, never taken for more than they are."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_cli.cli import runs
from wsss_cli.config.forms import NewerError
from wsss_cli.config.load import load_preset
from wsss_cli.engine.records import Inputs, read_inputs, read_record
from wsss_cli.engine.rundir import open_run, state_of
from wsss_cli.errors import UsageError
from wsss_cli.files import remove_temporaries
from wsss_cli.locks import is_locked, locked

TOY = load_preset("toy")
INPUTS = Inputs(dataset="data/toy", classes=("background", "cat"), colors=((0, 0, 0), (128, 0, 0)))


def opened(path, identity="abc"):
    return open_run(path, "train", TOY, identity, INPUTS)


@pytest.fixture
def run(tmp_path):
    with opened(tmp_path) as run:
        run.finish()
    return tmp_path


@pytest.mark.parametrize("damage", ["", "{", "5", '{"stage": 5}', "\xff", "[" * 100_000])
@pytest.mark.parametrize("name", ["run.json", "inputs.json", "preset.lock.toml"])
def test_a_damaged_record_is_written_anew(run, name, damage, capsys):
    (run / name).write_bytes(damage.encode("latin-1"))
    with opened(run) as again:
        assert again.done == (name != "run.json")  # then the stage looks itself at what is done
    assert read_record(run).identity == "abc"
    assert read_inputs(run) == INPUTS
    assert load_preset(str(run / "preset.lock.toml")) == TOY
    said = capsys.readouterr().err
    assert str(run / name) in said and "written anew; what is done is kept" in said


def test_a_record_of_other_settings_or_of_a_newer_version_is_left_alone(run):
    (run / "inputs.json").write_text("{")
    with pytest.raises(UsageError, match="made with other settings"), opened(run, "other"):
        pass
    assert (run / "inputs.json").read_text() == "{"
    newer = json.dumps({**json.loads((run / "run.json").read_text()), "form": 99})
    (run / "run.json").write_text(newer)
    with pytest.raises(NewerError, match="newer version"), opened(run):
        pass
    assert (run / "run.json").read_text() == newer


def test_what_killed_work_left_half_written_goes_when_the_lock_is_taken(run):
    (run / "cams").mkdir()
    (run / "cams" / ".a.npz.abcd1234.part").write_bytes(b"half")
    (run / "cams" / "a.part.npz").write_bytes(b"whole")
    (run / "checkpoints" / ".step-00000003.part").mkdir(parents=True)
    (run / "checkpoints" / ".step-00000003.part" / "model.safetensors").write_bytes(b"half")
    with opened(run):
        assert list(run.rglob(".*.part")) == []
    assert (run / "cams" / "a.part.npz").read_bytes() == b"whole"
    remove_temporaries(run / "nowhere")  # nothing to do


def test_a_run_whose_process_is_gone_is_not_running(tmp_path, capsys):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_run_records import opened\n"
        "with opened(Path(sys.argv[1])):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with contextlib.closing(process.stdin), contextlib.closing(process.stdout):
        assert process.stdout.readline() == "open\n"
        assert shown(tmp_path, capsys) == "running"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert read_record(tmp_path / "run").state == "running"
    assert state_of(tmp_path / "run", read_record(tmp_path / "run")) == "killed"
    assert shown(tmp_path, capsys) == "killed"


def shown(folder, capsys):
    runs.list_runs(folder, json_output=True)
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    runs.show(str(folder / "run"), folder, json_output=True)
    assert json.loads(capsys.readouterr().out)["state"] == listed["state"]
    return listed["state"]


def test_looking_at_a_lock_makes_none_and_takes_none(tmp_path):
    assert not is_locked(tmp_path / "LOCK")
    assert not (tmp_path / "LOCK").exists()
    with locked(tmp_path / "LOCK", "busy"):
        assert is_locked(tmp_path / "LOCK")
    assert not is_locked(tmp_path / "LOCK")
    with locked(tmp_path / "LOCK", "busy"):
        pass
