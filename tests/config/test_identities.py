"""Runs outlive an upgrade: what identifies them is frozen, and a setting that is added later does not change it."""

import json
from typing import Annotated, Literal

import make_identities
import pytest
from pydantic import Field

from wsss_cli.config.base import Added, Model
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.config.lock import decisive, identity
from wsss_cli.config.refine import CrfStep, PseudoConfig
from wsss_cli.config.schema import Preset, TrainConfig

GOLDEN = json.loads(make_identities.PATH.read_text())
WRITE = "PYTHONPATH=. python tests/golden/make_identities.py"


@pytest.mark.parametrize("name", sorted({*GOLDEN["identities"], *preset_names()}))
def test_the_runs_of_a_preset_are_found_again(name):
    assert make_identities.identities().get(name) == GOLDEN["identities"].get(name), (
        f"runs of {name} would not be found any more; meant, and in CHANGELOG.md? then {WRITE}"
    )


def test_a_setting_that_is_added_has_a_neutral_value():
    settings = make_identities.settings()
    for model, names in settings.items():
        before = GOLDEN["settings"].get(model)
        assert before is not None, f"{model} is new, which orphans no run: {WRITE}"
        later = set(names.split()) - set(before.split())
        assert not later, (
            f"{model}: {later} without Annotated[..., Added(neutral=...)]: runs would not be found any more"
        )
    assert settings == GOLDEN["settings"], f"settings are gone, or got a neutral value; in CHANGELOG.md? then {WRITE}"


# -- settings that are added later -------------------------------------------------------------------------------------


class Off(Model):
    kind: Literal["off"] = "off"


class Smooth(Model):
    kind: Literal["smooth"] = "smooth"
    width: float = 2.0


class LaterStep(CrfStep):
    passes: Annotated[int, Added(neutral=1), Field(ge=1)] = Field(3, description="not neutral by default")


class LaterPseudo(PseudoConfig):
    steps: tuple[LaterStep, ...] = (LaterStep(passes=1),)


class LaterTrain(TrainConfig):
    lovasz_weight: Annotated[float, Added(neutral=0.0)] = 0.0
    views: Annotated[tuple[float, ...], Added(neutral=(1.0,))] = (1.0,)
    table: Annotated[Smooth | None, Added(neutral=None)] = None
    union: Annotated[Off | Smooth, Added(neutral=Off()), Field(discriminator="kind")] = Off()


class LaterPreset(Preset):
    pseudo: LaterPseudo = LaterPseudo()
    train: LaterTrain = LaterTrain()
    precautions: Annotated[Smooth, Added(neutral=Smooth())] = Smooth()


def later(**changes):
    """The toy preset of a later version, with settings of `train` changed."""
    before = load_preset("toy").model_dump()
    before["pseudo"]["steps"] = [{**step, "passes": changes.pop("passes", 1)} for step in before["pseudo"]["steps"]]
    return LaterPreset.model_validate_json(json.dumps(before | {"train": before["train"] | changes}))


@pytest.mark.parametrize("stage", ["cam", "pseudo", "train", "relabel"])
def test_a_run_from_before_a_setting_was_added_is_found(stage):
    assert identity(later(), stage, "data", "up") == identity(load_preset("toy"), stage, "data", "up")


@pytest.mark.parametrize(
    "change",
    [
        *({"lovasz_weight": 0.5}, {"views": [1.0, 2.0]}, {"views": []}, {"table": {"kind": "smooth"}}),
        *({"union": {"kind": "smooth"}}, {"union": {"kind": "smooth", "width": 1.0}}, {"passes": 3}),
    ],
)
def test_another_value_than_the_neutral_one_is_another_run(change):
    stage = "pseudo" if "passes" in change else "train"
    assert identity(later(**change), stage) != identity(later(), stage)
    others = {"cam", "pseudo", "train", "relabel"} - {stage}
    assert all(identity(later(**change), other) == identity(later(), other) for other in others)


def test_what_decides_is_plain_and_has_no_neutral_settings():
    assert decisive(later().train)["optim"] == later().train.optim.model_dump(mode="json")
    assert "precautions" not in decisive(later())
    assert "passes" not in decisive(later().pseudo)["steps"][0]
    assert decisive(later(passes=2).pseudo)["steps"][0]["passes"] == 2


def test_the_default_of_an_added_setting_may_be_another_than_its_neutral_value():
    assert LaterStep().passes == 3
    assert decisive(LaterStep()) == decisive(CrfStep()) | {"passes": 3}
