"""What `wsss doctor` says; its kernels run in Triton's interpreter here."""

import json

import pydantic
import pytest
import torch

from wsss_cli.crf import lattice
from wsss_cli.kernels.trials import Check
from wsss_cli.stages import doctor, kernel_trials
from wsss_cli.stages.doctor import Diagnosis, diagnose
from wsss_cli.stages.kernel_trials import CHECKS, try_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_every_kernel_agrees_with_what_it_stands_for():
    pytest.importorskip("triton")
    tried = try_kernels(DEVICE)
    assert [trial.kernel for trial in tried] == [check.kernel for check in CHECKS]
    assert [(trial.kernel, trial.error, trial.reason) for trial in tried if not trial.passed] == []


def test_a_kernel_that_is_wrong_or_does_not_run_is_told(monkeypatch):
    def wrong(device, numbers):
        return [(torch.ones(2), torch.full((2,), 2.0))]

    def broken(device, numbers):
        raise RuntimeError("no\ncompiler")

    monkeypatch.setattr(kernel_trials, "CHECKS", (Check("a", 0.1, wrong), Check("b", 0.1, broken)))
    first, second = doctor.tried(DEVICE)
    assert (first.state, first.error) == ("fails", 0.5) and "0.1" in first.reason
    assert (second.state, second.error, second.reason) == ("fails", None, "RuntimeError: no compiler")


def test_the_names_of_kernels_are_there_without_torch():
    for short, check in zip(doctor.KERNELS, CHECKS, strict=True):
        assert check.kernel.startswith(short)


def test_the_diagnosis_is_of_its_schema(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/dataset.json").write_text("{}")
    monkeypatch.setenv("WSSS_DATA", str(tmp_path / "elsewhere"))
    diagnosis = diagnose(tmp_path / "runs")
    assert diagnosis.datasets == ("data/mine",)
    assert diagnosis.environment["WSSS_DATA"].endswith("elsewhere")
    assert all(place.free_gib is None or place.free_gib > 0 for place in diagnosis.places if place.purpose == "runs")
    text = json.dumps(diagnosis.model_dump(mode="json"))
    assert Diagnosis.model_validate_json(text) == diagnosis
    with pytest.raises(pydantic.ValidationError):
        Diagnosis.model_validate({**json.loads(text), "more": 1})
    schema = Diagnosis.model_json_schema()
    assert set(json.loads(text)) == set(schema["properties"])


def test_a_part_that_is_missing_says_how_it_is_had(monkeypatch):
    monkeypatch.setattr(doctor, "PARTS", (("no_such_module_here", "export", "pip install it"),))
    part, _ = diagnose(doctor.Path("runs")).parts
    assert (part.state, part.hint) == ("missing", "pip install it")


def test_what_the_crf_is_computed_with_on_a_cpu_is_told(monkeypatch):
    monkeypatch.setattr(lattice, "_library", [])
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(doctor, "PARTS", ())
    (part,) = diagnose(doctor.Path("runs")).parts
    assert (part.name, part.state) == ("the CRF's own lattice", "fails")
    assert part.hint == "$CC is 'no-such-compiler', and no such program is here"
