"""Options that several commands share. No heavy imports: `--help` must be fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss_cli.cli import completion
from wsss_cli.errors import UsageError

PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        "-p",
        metavar="NAME",
        autocompletion=completion.presets,
        help="Preset name (wsss presets list) or a .toml file.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=completion.settings,
        help="Change one setting of the preset; TOML value; repeatable.",
    ),
]
NetworkArgument = Annotated[
    Path | None,
    typer.Argument(
        autocompletion=completion.runs("train"),
        help="A training run, one of its checkpoints, or an imported or published directory. If left out, the newest "
        "finished training.",
    ),
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder that holds the run directories.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N", help="Where to compute; cuda:1 is the second GPU.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check all that can be known before, say what would be done, stop.")
]
GpusOption = Annotated[
    int,
    typer.Option(
        "--gpus", min=1, max=256, metavar="N", help="Work on N GPUs of this machine, or, without GPUs, in N processes."
    ),
]
LoggerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="tensorboard|wandb|mlflow",
        help="Send what trainings log there, too, by a process of its own; repeatable.",
    ),
]
ShardOption = Annotated[
    str,
    typer.Option(
        "--shard", metavar="I/N", help="Make part I of N of the images; array: the part of this task of a Slurm array."
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Who works through the images: this process, or workers of a Ray cluster."),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Of the Ray cluster; if left out, RAY_ADDRESS, else one on this machine."
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**62 - 1, help="Of every random choice, in place of the preset's."),
]
ItersOption = Annotated[
    int | None,
    typer.Option(
        "--iters", metavar="N", min=1, max=10**9, help="Training iterations of the network; the schedule follows."
    ),
]
LimitOption = Annotated[
    int,
    typer.Option(
        "--limit",
        metavar="N",
        min=0,
        max=10**9,
        help="A trial on the first N photographs of each split, which is not a result; 0: all.",
    ),
]
DataOption = Annotated[
    str, typer.Option("--data", metavar="DIR", help="Data set directory, in place of the preset's dataset.path.")
]
MsFlipOption = Annotated[bool, typer.Option("--ms-flip", help="Average over several scales, mirrored too.")]
BestOption = Annotated[bool, typer.Option("--best", help="The checkpoint that validated best, not the last.")]
WeightsOption = Annotated[
    Literal["ema", "raw"] | None,
    typer.Option(
        "--weights", help="Averaged weights or those of the last step; averaged ones where train.ema made them."
    ),
]
ModeOption = Annotated[
    Literal["whole", "slide"] | None,
    typer.Option("--mode", help="Whole images or windows, in place of the preset's."),
]

RUNS = Path("runs")


def written_file(text: str | Path) -> Path:
    """The file that an option names to be written.

    Raises:
        UsageError: it ends in '/', or is a folder.
    """
    if str(text).endswith("/") or Path(text).is_dir():
        raise UsageError(f"{text} is a folder", "give the name of a file, in it or elsewhere")
    return Path(text)
