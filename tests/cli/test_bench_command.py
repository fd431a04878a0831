"""`wsss bench` through the real process."""

import json

import pytest


def test_json_is_one_object_and_nothing_is_left_behind(wsss, tmp_path):
    size = ("--height", "16", "--width", "20", "--labels", "3", "--iterations", "2", "--repeats", "1")
    done = wsss("bench", "crf", *size, "--backends", "lattice,triton", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lattice, triton = found["rows"]
    assert (lattice["name"], lattice["ratio"], triton["name"]) == ("lattice", 1.0, "triton")
    assert lattice["images_s"] == pytest.approx(1000 / lattice["ms"], rel=1e-3)
    assert triton["reason"]
    assert (found["settings"]["height"], found["settings"]["labels"]) == (16, 3)
    assert found["ceilings"]["copy_gb_s"] > 0
    assert "dense CRF" in done.stderr  # progress
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_worker_count_is_named(wsss, tmp_path):
    done = wsss("bench", "data", "--workers", "0,two")
    assert done.returncode == 2
    assert "'two' is no worker count" in done.stderr


@pytest.mark.parametrize("name", ["crf", "cam", "walk", "train", "eval", "data"])
def test_help_says_what_is_measured_and_has_examples(wsss, name):
    done = wsss("bench", name, "--help", COLUMNS="100")
    assert done.returncode == 0
    assert done.stdout.count(f"wsss bench {name}") >= 3
