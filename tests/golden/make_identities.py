"""Writes identities.json: what identifies the runs of the presets that come along, and which settings count.

    PYTHONPATH=. python tests/golden/make_identities.py

A change of an identity orphans every run of that stage on every disk: the same command starts anew. So it needs an
entry in CHANGELOG.md. A setting that is added changes none where it is marked with its neutral value
(`wsss_cli.config.base.Added`); a new preset or a new kind in a union only adds lines.
"""

import json
import typing
from pathlib import Path

from pydantic import BaseModel

from wsss_cli.config.base import Added
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.config.lock import Stage, identity
from wsss_cli.config.schema import Preset

PATH = Path(__file__).with_name("identities.json")
NOTE = "Runs are found by these. A change here orphans them: only with an entry in CHANGELOG.md. See make_identities.py"


def identities():
    """{preset: {stage: identity}} for one data set and one run upstream."""
    return {name: _identities(load_preset(name)) for name in preset_names()}


def _identities(preset):
    stages = [stage for stage in typing.get_args(Stage) if getattr(preset.affinity, stage, preset) is not None]
    return {stage: identity(preset, stage, "data", "upstream") for stage in stages}


def settings():
    """{model: its settings without a neutral value, in one line}, for all variants of all unions."""
    return {
        name: " ".join(sorted(key for key, field in model.model_fields.items() if not _added(field)))
        for name, model in sorted(_models(Preset).items())
    }


def _added(field):
    return any(isinstance(mark, Added) for mark in field.metadata)


def _models(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [_models(field.annotation) for field in annotation.model_fields.values()]
        return {annotation.__name__: annotation} | {name: model for models in inner for name, model in models.items()}
    return {name: model for part in typing.get_args(annotation) for name, model in _models(part).items()}


if __name__ == "__main__":
    content = {"note": NOTE, "identities": identities(), "settings": settings()}
    PATH.write_text(json.dumps(content, indent=1) + "\n")
