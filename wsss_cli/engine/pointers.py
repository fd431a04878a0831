"""Which checkpoint is meant: `latest` and `best` in the folder of a run's checkpoints name one each."""

from __future__ import annotations

import re
from pathlib import Path

from wsss_cli.engine.records import is_run, read_record
from wsss_cli.errors import WeightsError

POINTERS = ("latest", "best")
PUBLISHED = re.compile(r".+-[0-9a-f]{8}\.safetensors")


def pointed(folder: Path, pointer: str) -> str:
    """The name of the checkpoint folder that a pointer, `latest` or `best`, names; empty where it names none."""
    file = folder / pointer
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def find_checkpoint(folder: Path, pointer: str = "latest") -> Path | None:
    """The checkpoint folder that `latest` or `best` names; None where there is none yet.

    Where the latest has been taken away (a damaged one, say), the newest of the others takes its place.
    """
    folder = Path(folder)
    name = pointed(folder, pointer)
    if name and (folder / name).is_dir():
        return folder / name
    return max(folder.glob("step-*"), default=None) if pointer == "latest" else None


def weights_in(folder: Path) -> Path:
    """The weights of a checkpoint folder or an imported directory, or of a published one, which are named by hash."""
    plain = folder / "model.safetensors"
    return plain if plain.is_file() else next(filter(_is_published, sorted(folder.glob("*.safetensors"))), plain)


def _is_published(file: Path) -> bool:
    return PUBLISHED.fullmatch(file.name) is not None


def weight_file(path: Path) -> Path:
    """The weights of a train run's last checkpoint (averaged ones where it has them), of a checkpoint folder or of an
    imported or published directory; a file itself.

    Raises:
        WeightsError: a directory without weights.
    """
    path = checkpoint_named(path)
    if not path.is_dir():
        return path
    folder = find_checkpoint(path / "checkpoints") if is_run(path) else path
    if folder is None:
        stage = read_record(path).stage
        if stage in ("cam", "pseudo"):
            raise WeightsError(
                f"{path} is a {stage} run, which has no network", "name a training run, or a weight file"
            )
        raise WeightsError(f"{path} has no checkpoint yet", "finish its training first: run its command again")
    weights = weights_in(folder)
    if not weights.is_file():
        raise WeightsError(f"{path} is no run, checkpoint or imported directory", "give a weight file, or such a one")
    averaged = folder / "ema.safetensors"
    return averaged if averaged.is_file() else weights


def checkpoint_named(path: Path) -> Path:
    """The checkpoint folder that RUN/checkpoints/latest or RUN/checkpoints/best names; any other path as it is."""
    if path.name in POINTERS and path.parent.name == "checkpoints":
        return find_checkpoint(path.parent, path.name) or path
    return path
