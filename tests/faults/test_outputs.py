"""A run that says "done" is looked at: what is gone or damaged is made anew, and what is dropped is named."""

import json

import numpy as np
import pytest

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.outputs import LIST, damaged_outputs, is_whole, list_outputs
from wsss_cli.errors import DataError, WriteError
from wsss_cli.files import read_json
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.plan import open_experiment, plan_cam, plan_pseudo

FILES = ("cams/a.npz", "cams/b.npz", "prototypes.safetensors", "checkpoints/step-00000003/meta.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder, images=2, val=1, size=32)
    return folder


@pytest.fixture
def exp(data, tmp_path):
    return open_experiment(load_preset("toy", [f"dataset.path={data}"]), tmp_path / "runs")


@pytest.fixture
def cam(exp):
    """A finished cam run with some files."""
    steps = plan_cam(exp)
    for step in steps:
        with open_step(step, exp) as run:
            for name in FILES:
                (run.path / name).parent.mkdir(parents=True, exist_ok=True)
                (run.path / name).write_bytes(b"whole " + name.encode())
            run.finish()
    return steps[-1].path


def planned(exp):
    return [(step.stage, step.done) for step in plan_cam(exp) if step.stage == "cam"]


def test_a_whole_run_is_done_whatever_is_written_beside_its_outputs(exp, cam):
    for name in ("eval-val.json", "log.txt", ".hidden"):
        (cam / name).write_text("more")
    assert damaged_outputs(cam) == []
    assert planned(exp) == [("cam", True)]


def test_pages_and_pictures_of_a_run_are_no_outputs_of_it_also_where_they_were_there_before_the_list(cam):
    beside = ("report.html", "examples.jpg", "show.png", "features.backbone.png")
    for name in beside:
        (cam / name).write_text("of the run as it was")
    list_outputs(cam)  # as a run does that was mended
    for name in beside:
        (cam / name).write_text("made anew")
    assert damaged_outputs(cam) == []
    listed = read_json(cam / LIST)
    assert sorted(listed) == sorted(FILES)
    (cam / LIST).write_text(json.dumps({**listed, "report.html": 5}))  # as earlier versions listed it
    assert damaged_outputs(cam) == []


def test_the_list_is_json_in_order_and_one_in_another_form_is_read(exp, cam):
    for name in ("cams/c/d.npz", "cams/c-d.npz", 'cams/q"\u00fc.npz'):
        (cam / name).parent.mkdir(exist_ok=True)
        (cam / name).write_bytes(b"whole")
    list_outputs(cam)
    text, listed = (cam / LIST).read_text(encoding="utf-8"), read_json(cam / LIST)
    assert text == json.dumps(dict(sorted(listed.items())), indent=2, ensure_ascii=False) + "\n"
    assert len(listed) == 7
    (cam / "cams/c-d.npz").unlink()
    (cam / "cams/c/d.npz").write_bytes(b"")
    damaged = [cam / "cams/c-d.npz", cam / "cams/c/d.npz"]
    assert damaged_outputs(cam) == damaged
    (cam / LIST).write_text(json.dumps(dict(reversed(listed.items()))))
    assert damaged_outputs(cam) == damaged
    (cam / LIST).write_text(json.dumps(dict(reversed(listed.items())), indent=2))
    assert damaged_outputs(cam) == damaged
    for text in ("[1]", "{", ""):
        (cam / LIST).write_text(text)
        assert damaged_outputs(cam) == []


@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_gone_or_damaged_is_made_anew_and_nothing_else(exp, cam, name, damage, capsys):
    file = cam / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-1])
    assert damaged_outputs(cam) == [file]
    assert planned(exp) == [("cam", False)]
    with open_step(plan_cam(exp)[-1], exp) as run:
        assert not run.done
        assert not file.exists()
        assert (cam / "checkpoints" / "step-00000003").is_dir() == (name != FILES[3])
        assert [other for other in FILES if (cam / other).is_file()] == [other for other in FILES if other != name]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"anew")
        run.finish()
    assert f"1 of its files is gone or damaged, first {name}: made anew" in capsys.readouterr().err
    assert planned(exp) == [("cam", True)]


def test_a_later_stage_has_it_made_first(exp, cam):
    def to_do():
        return [step.stage for step in plan_pseudo(exp, None, print) if not step.done]

    assert to_do() == ["pseudo"]
    (cam / FILES[0]).unlink()
    assert to_do() == ["cam", "pseudo"]


@pytest.mark.parametrize("name", ["run.json", "inputs.json"])
def test_a_run_with_a_damaged_record_is_opened_and_mended(exp, cam, name):
    (cam / name).write_text("")
    assert planned(exp) == [("cam", False)]
    with open_step(plan_cam(exp)[-1], exp) as run:
        run.finish()
    assert planned(exp) == [("cam", True)]


def test_a_run_whose_record_was_not_written_yet_is_opened(exp, cam):
    """Killed between inputs.json and run.json, or seen by another process at that moment."""
    (cam / "run.json").unlink()
    assert not is_whole(cam)
    assert planned(exp) == [("cam", False)]
    with open_step(plan_cam(exp)[-1], exp) as run:
        run.finish()
    assert planned(exp) == [("cam", True)]


def test_a_run_that_is_removed_while_it_is_worked_in_is_an_error(exp):
    step = plan_cam(exp)[-1]
    with pytest.raises(WriteError, match="was removed while it was worked in"), open_step(step, exp) as run:
        for file in run.path.iterdir():
            file.unlink()
        run.path.rmdir()
        (run.path / "cams").mkdir(parents=True)  # as the next item that is written does
        run.finish()
    assert not (step.path / "run.json").exists()


def test_every_mutant_of_a_cam_is_an_error_with_its_name_or_the_same_cam(tmp_path):
    write_cam(tmp_path / "whole.npz", np.random.default_rng(0).random((2, 6, 6)).astype(np.float32), (1, 3), (12, 12))
    data = (tmp_path / "whole.npz").read_bytes()
    draw, named = np.random.default_rng(1), 0
    for _ in range(300):
        mutant = bytearray(data[: draw.integers(1, len(data))] if draw.random() < 0.3 else data)
        for place in draw.integers(0, len(mutant), draw.integers(1, 4)):
            mutant[place] = draw.integers(256)
        (tmp_path / "mutant.npz").write_bytes(mutant)
        try:
            read_cam(tmp_path / "mutant.npz")
        except DataError as error:
            assert "mutant.npz is not a CAM file" in error.message
            named += 1
    assert named > 150
