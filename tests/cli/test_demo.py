"""What `wsss demo` refuses before any work; limits of the numbers that commands take."""

from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from typer.main import get_command

from wsss_cli.cli.app import app
from wsss_cli.cli.demo import demo
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.errors import DataError, UsageError, WeightsError


def faults(out, *settings, device="cpu"):
    with pytest.raises((DataError, UsageError, WeightsError)) as caught:
        demo(out=out, images=8, seed=0, overrides=list(settings), device=device)
    return caught.value.message.splitlines()


def test_all_that_is_known_to_fail_is_said_once_and_nothing_is_written(tmp_path):
    keys = ("classifier.backbone.weights", "train.backbone.weights")
    said = faults(tmp_path / "X", *(f"{key}=/nowhere/{key}.pth" for key in keys), "train.kernels=fused")
    assert [line.split(":")[0] for line in said] == [*keys, "train.kernels is 'fused'"]
    assert faults(tmp_path / "X", device="cuda:99")[0].startswith("--device cuda:99: this machine has")
    assert not (tmp_path / "X").exists()


def test_a_data_set_of_an_earlier_demo_is_looked_at(tmp_path):
    data = tmp_path / "X/data/toy-8-0"
    prepare_toy(data, images=2, val=1, size=32)
    (data / "splits/train.csv").unlink()
    (line,) = faults(tmp_path / "X")
    assert "train.csv" in line


def commands(group):
    """The functions of all commands of a group and below."""
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else (command.callback,)


def test_every_whole_number_of_every_command_has_limits():
    options = {}
    for command in commands(get_command(app)):
        for name, kind in get_type_hints(command, include_extras=True).items():
            plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
            if plain in (int, int | None):
                options[f"{command.__name__} {name}"] = kind.__metadata__[0]
    assert len(options) > 30
    assert [place for place, option in options.items() if option.max is None] == []
