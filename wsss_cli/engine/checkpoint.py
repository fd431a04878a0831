"""Checkpoints: a folder that appears whole, named by its step, verified by hash when read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from wsss_cli.engine.pointers import find_checkpoint, pointed
from wsss_cli.errors import DataError, WeightsError
from wsss_cli.files import read_json, sha256_file, write_bytes, write_json, write_text

LAYOUT = 1
MODEL, AVERAGE = "model.safetensors", "ema.safetensors"
HINT = "remove this checkpoint folder and run again: training goes on from the one before, or anew"


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    trainer: dict[str, Any],
    meta: dict[str, Any],
    average: nn.Module | None = None,
) -> Path:
    """Write checkpoints/step-XXXXXXXX/{model.safetensors, trainer.pt, meta.json} and point `latest` at it.

    meta.json also says what a model that has `holds` says of itself: its kind, its backbone, how many classes.

    Once it is in place older checkpoints are removed, except the one before it, for the case that the new one gets
    damaged, and the one that `best` names.

    Args:
        folder: the run's checkpoints folder.
        trainer: optimiser state, tensors and plain values only.
        average: of the model's weights; goes to ema.safetensors.
    """
    name = step_name(step)
    target, partial = folder / name, folder / f".{name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    networks = {MODEL: model} if average is None else {MODEL: model, AVERAGE: average}
    for file, network in networks.items():
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        write_bytes(partial / file, safetensors.torch.save(state))
    buffer = io.BytesIO()
    torch.save(trainer, buffer)
    write_bytes(partial / "trainer.pt", buffer.getvalue())
    hashes = {file: sha256_file(partial / file) for file in (*networks, "trainer.pt")}
    holds = getattr(model, "holds", {})
    write_json(partial / "meta.json", {"layout": LAYOUT, "step": step, "sha256": hashes, **holds, **meta})
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    write_text(folder / "latest", name + "\n")
    _remove_old(folder)
    return target


def step_name(step: int) -> str:
    """The folder of a step's checkpoint."""
    return f"step-{step:08d}"


def mark_best(folder: Path, step: int) -> None:
    """Point `best` at the checkpoint of `step`."""
    write_text(folder / "best", step_name(step) + "\n")
    _remove_old(folder)


def _remove_old(folder: Path) -> None:
    latest = pointed(folder, "latest")
    names = [old.name for old in folder.glob("step-*")]
    before = max((name for name in names if name < latest), default="")
    for name in names:
        if name not in (latest, before, pointed(folder, "best")):
            shutil.rmtree(folder / name, ignore_errors=True)


def pointed_step(folder: Path, pointer: str) -> int:
    """The step of the checkpoint that `latest` or `best` names; -1 where it names none."""
    number = pointed(folder, pointer).removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def load_newest(
    folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """Model, trainer state and meta.json of the newest checkpoint that is whole; None where there is no checkpoint.

    `latest` names that one afterwards, and `best` none that is newer.

    Args:
        folder: the run's checkpoints folder.
        say: told where the newest one is damaged and an older one takes its place.
    Raises:
        WeightsError: all of them are damaged.
    """
    latest = find_checkpoint(folder)
    older = sorted((path for path in folder.glob("step-*") if latest and path.name < latest.name), reverse=True)
    damaged: WeightsError | None = None
    for checkpoint in [latest, *older] if latest else []:
        try:
            state, meta = load_weights(checkpoint)
            trainer = load_trainer(checkpoint)
            if AVERAGE in meta["sha256"]:
                load_weights(checkpoint, AVERAGE)
        except WeightsError as error:
            damaged = damaged or error
            continue
        if damaged is not None:
            say(f"{damaged.message}: training goes on from the checkpoint before, {checkpoint.name}")
            if pointed(folder, "best") > checkpoint.name:
                (folder / "best").unlink()
        if pointed(folder, "latest") != checkpoint.name:  # damaged, or not written when the disk was full
            write_text(folder / "latest", checkpoint.name + "\n")
        return state, trainer, meta
    if damaged is not None:
        raise damaged
    return None


def load_weights(checkpoint: Path, file: str = MODEL) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Model state and meta.json of a checkpoint folder, hashes verified.

    Args:
        file: `MODEL`, or `AVERAGE` of a training that has one.
    Raises:
        WeightsError: a file is missing, cut off or changed since it was written, or holds numbers that are not finite.
    """
    meta = _verified(checkpoint, file)
    try:
        state = safetensors.torch.load_file(checkpoint / file)
    except Exception as error:  # safetensors raises its own Rust error type
        raise WeightsError(f"{checkpoint / file} cannot be read: {error}", HINT) from error
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{checkpoint / file} is damaged: {name} is not finite", HINT)
    return state, meta


def load_trainer(checkpoint: Path) -> dict[str, Any]:
    """Optimiser state of a checkpoint folder, hash verified, read without running any code in it.

    Raises:
        WeightsError: the file is damaged, or holds anything but tensors and plain values.
    """
    _verified(checkpoint, "trainer.pt")
    try:
        state: dict[str, Any] = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # pickle, zip, runtime and value errors, by what is wrong with the file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"{checkpoint / 'trainer.pt'} is refused, nothing in it was run: {reason}", HINT) from error


def _verified(checkpoint: Path, file: str) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = read_json(checkpoint / "meta.json")
        expected = meta["sha256"][file]
        actual = sha256_file(checkpoint / file)
    except DataError as error:
        raise WeightsError(f"checkpoint {checkpoint} is incomplete: {error.message}", HINT) from error
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{checkpoint / 'meta.json'} has no SHA-256 of {file}", HINT) from error
    if expected != actual:
        raise WeightsError(f"{checkpoint / file} is damaged: its SHA-256 is not the one in meta.json", HINT)
    return meta
