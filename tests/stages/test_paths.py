"""Where runs keep the files of images: flat, or spread over folders where there are many; and which are there."""

import hashlib
import json
from pathlib import Path

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import Sample, open_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import Inputs, read_record
from wsss_cli.engine.rundir import open_run
from wsss_cli.engine.shards import count_by_shard, shard_of
from wsss_cli.scoring.masks import pair_masks
from wsss_cli.stages import opening, paths
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.paths import Files, cam_files, cam_path, mask_files, mask_path, spread_for
from wsss_cli.stages.plan import Experiment, Step

IDS = ["a", "holiday/001", "holiday/ab/x.png", "ab/c", ".hidden", "\u00fc [b]"]
INPUTS = Inputs(dataset="d", classes=(), colors=())


def sample(name):
    return Sample(name, Path("x.jpg"), None, ())


@pytest.mark.parametrize("spread", [0, 2])
def test_what_is_there_is_known_by_its_id(tmp_path, spread):
    files = Files(tmp_path / "cams", ".npz", spread)
    assert (list(files.names()), files.there([sample("a")]).tolist()) == ([], [False])
    for name in IDS[:-1]:
        files.of(name).parent.mkdir(parents=True, exist_ok=True)
        files.of(name).write_bytes(b"")
    (files.of("a").parent / ".a.npz.abcd.part").write_bytes(b"")
    (files.of("a").parent / "a.png").write_bytes(b"")
    assert sorted(files.names()) == sorted(IDS[:-1])
    samples = [sample(name) for name in IDS]
    assert files.there(samples).tolist() == [True] * 5 + [False]
    assert [one.id for one in files.without_file(samples)] == IDS[-1:]
    assert [one.id for one in files.with_file(samples)[1:3]] == IDS[1:3]
    assert count_by_shard(files.names(), 1) == {1: 5}
    assert count_by_shard(["a"], 3) == {shard_of("a", 3): 1}


def test_a_spread_file_is_in_a_folder_named_by_the_hash_of_its_id(tmp_path):
    digits = hashlib.sha256(b"holiday/001").hexdigest()[:2]
    expected = tmp_path / "masks" / digits / "holiday/001.png"
    assert Files(tmp_path / "masks", ".png", 2).of("holiday/001") == expected


def test_a_run_keeps_the_layout_that_it_was_made_with(tmp_path):
    assert (spread_for(20_000), spread_for(20_001)) == (0, 2)
    run = tmp_path / "cam"
    with open_run(run, "cam", load_preset("toy"), "x", INPUTS, 2):
        pass
    assert cam_path(run, "a") == run / "cams" / hashlib.sha256(b"a").hexdigest()[:2] / "a.npz"
    with open_run(run, "cam", load_preset("toy"), "x", INPUTS, 0):  # the limit is another one by now
        assert cam_files(run).spread == 2
    old = tmp_path / "old"
    with open_run(old, "pseudo", load_preset("toy"), "x", INPUTS, 0):
        pass
    record = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "spread"}))
    with open_run(old, "pseudo", load_preset("toy"), "x", INPUTS, 2):
        assert mask_path(old, "a") == old / "masks" / "a.png"


@pytest.mark.parametrize("spread", [0, 2])
def test_a_run_whose_record_was_lost_keeps_its_layout(tmp_path, spread):
    with open_run(tmp_path, "pseudo", load_preset("toy"), "x", INPUTS, spread):
        file = mask_path(tmp_path, "a")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    (tmp_path / "run.json").write_text("{")
    with open_run(tmp_path, "pseudo", load_preset("toy"), "x", INPUTS, 2 - spread):
        assert mask_files(tmp_path).spread == spread


def test_runs_of_many_images_are_spread(tmp_path, monkeypatch):
    prepare_toy(tmp_path / "toy", images=3, val=1, size=32)
    preset = load_preset("toy", [f'dataset.path="{tmp_path / "toy"}"'])
    exp = Experiment(preset, open_dataset(tmp_path / "toy"), tmp_path / "runs")
    for limit, spread in ((3, 0), (2, 2)):
        monkeypatch.setattr(paths, "SPREAD_ABOVE", limit)
        with open_step(Step("cam", tmp_path / f"cam-{limit}", "x"), exp) as run:
            assert opening.spread_of(exp) == run.record.spread == read_record(run.path).spread == spread


def test_masks_of_a_spread_run_are_scored_by_their_names(tmp_path):
    with open_run(tmp_path / "run", "pseudo", load_preset("toy"), "x", INPUTS, 2):
        file = mask_path(tmp_path / "run", "holiday/a.v1")
    for path in (file, tmp_path / "truth" / "holiday" / "a.v1.png"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    pairs, extra = pair_masks(tmp_path / "run" / "masks", tmp_path / "truth")
    assert (pairs, extra) == ([(file, path)], 0)
