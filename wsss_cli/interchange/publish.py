"""A trained network as a folder to give away: its weights, what they are, and a card for its readers."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from wsss_cli import __version__
from wsss_cli.data.dataset import open_dataset
from wsss_cli.engine.checkpoint import LAYOUT
from wsss_cli.engine.pointers import checkpoint_named
from wsss_cli.engine.records import is_run, read_inputs
from wsss_cli.errors import DataError, UsageError, WriteError
from wsss_cli.files import read_json, refuse_unwritable, sha256_file, write_bytes, write_json, write_text
from wsss_cli.inference.network import Network
from wsss_cli.interchange.card import card_text
from wsss_cli.talk import silent

CARD, META = "README.md", "meta.json"
MODES = {  # of eval.json, in the words of the card
    "ms_flip_crf": "ms+flip, CRF",
    "ms_flip": "ms+flip",
    "single_crf": "single scale, CRF",
    "single": "single scale",
}


def run_publish(network: Network, run: Path, out: Path) -> dict[str, Any]:
    """Write a network as a folder that every command takes where it takes a run, and that needs nothing else.

    NAME-XXXXXXXX.safetensors are the weights that are used (no optimiser, no others), the digits the first of the
    file's SHA-256, as torch.hub checks them; meta.json is what `load_network` reads; README.md is the card. The folder
    appears whole. Where it is there with these weights it stays: scores that are new go to meta.json and, unless
    somebody has edited it, to the card.

    Args:
        run: where the network comes from; scores of it that are of this network are told.
        out: the folder; not there yet, empty, or of an earlier call.
    Returns:
        {'out', 'file', 'sha256', 'bytes', 'classes', 'scores': how many, 'kept': whether nothing was written,
        'card_edited': whether the card was left as somebody has edited it}.
    Raises:
        UsageError: another network, or anything else, is there.
        WriteError: the folder cannot be written.
    """
    out = Path(os.path.abspath(out))  # '.' has no name  # noqa: PTH100
    refuse_unwritable(out / META)
    data = safetensors.torch.save(
        {key: value.detach().cpu().contiguous() for key, value in network.model.state_dict().items()}
    )
    digest = hashlib.sha256(data).hexdigest()
    name = re.sub(r"[^\w+-]+", "_", network.preset.name) or "network"
    file = f"{name}-{digest[:8]}.safetensors"
    meta = _meta(network, run, {file: digest})
    card = card_text(meta, file, out.name)
    meta["card_sha256"] = _sha256(card)
    result = {
        "out": str(out),
        "file": file,
        "sha256": digest,
        "bytes": len(data),
        "classes": list(network.classes),
        "scores": len(meta["scores"]),
    }
    if out.is_dir() and any(out.iterdir()):
        return {**result, **_again(out, file, meta, card)}
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    write_bytes(partial / file, data)
    write_json(partial / META, meta)
    write_text(partial / CARD, card)
    try:
        partial.replace(out)
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror}", "choose another --out") from error
    return {**result, "kept": False, "card_edited": False}


def _again(out: Path, file: str, meta: Mapping[str, Any], card: str) -> dict[str, bool]:
    """See that a folder that is there has these weights, and bring what is told of them up to date."""
    hint = "choose another --out, or remove the folder"
    try:
        before = read_json(out / META)
        holds, card_before = dict(before["sha256"]), str(before["card_sha256"])
    except (DataError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{out} is there, and wsss weights publish has not made it", hint) from error
    if holds != meta["sha256"]:
        raise UsageError(f"{out} is there, and holds another network: {', '.join(holds)}", hint)
    if not (out / file).is_file() or sha256_file(out / file) != holds[file]:
        raise UsageError(f"{out / file} has changed since it was written, or is gone", hint)
    text = (out / CARD).read_text(encoding="utf-8", errors="replace") if (out / CARD).is_file() else None
    edited = text is not None and _sha256(text) not in (card_before, meta["card_sha256"])
    same_card = text == card or edited
    if not same_card:
        write_text(out / CARD, card)
    if before != meta:
        write_json(out / META, meta)
    return {"kept": same_card and before == meta, "card_edited": edited}


def _meta(network: Network, run: Path, sha256: dict[str, str]) -> dict[str, Any]:
    """meta.json: what `load_network` reads, and what the card says."""
    root = _run_of(run)
    inputs = read_inputs(root) if root else None
    return {
        "layout": LAYOUT,
        "step": network.step,
        "sha256": sha256,
        **network.model.holds,
        "classes": list(network.classes),
        "colors": [list(color) for color in network.colors],
        "origin": network.origin,
        "weights": network.weights,
        "dataset": network.dataset,
        "split_sha256": network.split_sha256,
        "preset": network.preset.model_dump(mode="json"),
        "published_by": f"wsss {__version__}",
        "teacher": inputs.teacher if inputs else "",
        "data": _data(network, inputs.dataset_name if inputs else ""),
        "scores": _scores(network, [root, checkpoint_named(run)]),
    }


def _run_of(path: Path) -> Path | None:
    """The run that is meant, or that a checkpoint is of; None: an imported or published network."""
    path = checkpoint_named(path)
    above = path.resolve().parent.parent
    return path if is_run(path) else above if is_run(above) else None


def _data(network: Network, name: str) -> dict[str, Any]:
    """Name and counts of the data set that a network was trained on, as far as it is there and is as it was then."""
    splits: dict[str, dict[str, int]] = {}
    try:
        dataset = open_dataset(network.dataset, silent)
        for split, sha256 in dataset.split_sha256.items():
            if network.split_sha256.get(split, sha256) == sha256:
                samples = dataset.split(split)
                splits[split] = {"images": len(samples), "with_masks": int(sum(samples.masked))}
        name = name or dataset.name
    except DataError:  # moved, or of another machine
        splits = {}
    return {"name": name or Path(network.dataset).name, "splits": splits}


def _scores(network: Network, places: Sequence[Path | None]) -> list[dict[str, Any]]:
    """Scores of these weights that are stored: {'split', 'views', 'miou', 'iou': by class, 'protocol'}.

    Args:
        places: the run, and the folder that was named, where `wsss eval` of that leaves them; of two of one name the
            first one's count.
    """
    scores: list[dict[str, Any]] = []
    there = {file.name: file for place in reversed(places) if place for file in place.glob("eval*.json")}
    for _, file in sorted(there.items()):
        try:
            stored = read_json(file)
            if (stored["step"], stored.get("weights", "")) != (network.step, network.weights):
                continue
            told = {"split": str(stored["split"]), "protocol": [str(line) for line in stored["protocol"]]}
            for key, views in MODES.items():
                if mode := stored.get(key):
                    iou = dict(zip(mode["classes"], mode["iou"], strict=True))
                    scores.append({**told, "views": views, "miou": mode["miou"], "iou": iou})
        except (DataError, LookupError, TypeError, ValueError, AttributeError):  # of another form, or counts so far
            continue
    return scores


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
