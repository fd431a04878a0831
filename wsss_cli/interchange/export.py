"""A trained network as an ONNX or TorchScript file that stands alone, checked against the network itself."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import read_json, refuse_unwritable, sha256_file, write_bytes, write_json
from wsss_cli.inference.journal import weights_digest
from wsss_cli.inference.network import Network
from wsss_cli.interchange.portable import Output, Portable

Format = Literal["onnx", "torchscript"]
EXTRA = ("onnx", "onnxscript", "onnxruntime")
TRACED = (66, 97)
CHECKED = ((97, 130), (160, 64))
TOLERANCE = 1e-3  # of the largest logit, and of the pixels for labels


def run_export(network: Network, out: Path, form: Format, output: Output, run: str = "") -> dict[str, Any]:
    """Write a network as one file: RGB in 0..255, [1, 3, H, W] of any size, in; labels or logits of that size out.

    The file takes 'image' (uint8; TorchScript float too) and gives uint8 [1, H, W] or float32 [1, K, H, W].
    Normalisation and the way back to the input's size are inside; the resizing of `eval.base = "short"` is not. Class
    names are in the metadata ('classes', JSON). The file is compared with the network on two sizes before it is put in
    place. <out>.json beside it says what it was made from: where that is the same, the file is kept.

    Args:
        network: on the CPU; not to be used afterwards.
        run: where it comes from, for the record.
    Returns:
        {'out', 'format', 'output', 'sha256', 'classes', 'difference', 'checked': [{'height', 'width', 'difference'}],
        'kept': whether it was there already}; a difference is the largest one of the logits over the largest logit, or
        the share of pixels with another label.
    Raises:
        UsageError: packages for ONNX are missing, or another file or a folder is there.
        WriteError: the file cannot be written.
        WeightsError: the network cannot be exported, or the file does not agree with it.
    """
    refuse_unwritable(out)
    if form == "onnx":
        require_onnx()
    settings = settings_of(network, form, output)
    if out.is_file():
        return {**_result(out, settings, _checks_in(record_there(out, settings))), "kept": True}
    data, checked = converted(network, form, output)
    write_exported(out, data, {"run": run, "dataset": network.dataset, "settings": settings, "checked": checked})
    return {**_result(out, settings, checked), "kept": False}


def converted(network: Network, form: Format, output: Output) -> tuple[bytes, list[dict[str, Any]]]:
    """The bytes of a file, and its comparisons with the network, which is not to be used afterwards.

    Raises:
        WeightsError: the network cannot be exported, or the file does not agree with it.
    """
    images = [_noise(size) for size in CHECKED]
    with torch.no_grad():
        expected = [_reference(network, image, output) for image in images]
        portable = Portable(network.model.to(memory_format=torch.contiguous_format), output)
        save, read = (_onnx, _read_onnx) if form == "onnx" else (_torchscript, _read_torchscript)
        metadata = {"classes": json.dumps(list(network.classes)), "origin": network.origin}
        metadata["eval"] = network.preset.eval.model_dump_json()  # how photographs are resized before
        try:
            with quiet():
                data = save(portable, _noise(TRACED), metadata)
        except Exception as error:  # the exporters raise errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise WeightsError(f"this network cannot be written as {form}: {reason}", _other(form)) from error
        exported = read(data)
        differences = [_difference(exported(image), theirs) for image, theirs in zip(images, expected, strict=True)]
    checked = [{"height": h, "width": w, "difference": d} for (h, w), d in zip(CHECKED, differences, strict=True)]
    if not max(differences) <= TOLERANCE:
        worst = max(checked, key=lambda entry: entry["difference"])
        raise WeightsError(
            f"the {form} file does not agree with the network: {worst['difference']:.2e} at {worst['height']}x"
            f"{worst['width']} ({TOLERANCE:g} is allowed); it is not written",
            _other(form),
        )
    return data, checked


def write_exported(out: Path, data: bytes, record: dict[str, Any]) -> None:
    """Write a file and, before it, the record of what it was made from."""
    for partial in out.parent.glob(f".{glob.escape(out.name[:80])}.*.part"):  # of an export that was killed
        partial.unlink(missing_ok=True)
    # the record first: a kill between the two leaves no file of nobody knows what
    write_json(_record_of(out), {"form": 1, "bytes": len(data), **record})
    write_bytes(out, data)


def settings_of(network: Network, form: Format, output: Output) -> dict[str, Any]:
    """All that a file depends on; plain values."""
    train = network.preset.train
    return {
        "network": network.origin,
        "weights": weights_digest(network.model),
        "backbone": train.backbone.model_dump(mode="json"),
        "head": train.head.model_dump(mode="json"),
        "classes": list(network.classes),
        "format": form,
        "output": output,
    }


def _record_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def record_there(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of a file that is there, if it was made with these settings.

    Raises:
        UsageError: it was made with others, nobody knows with which, or it has changed since.
    """
    hint = "choose another --out, or remove the file"
    try:
        record = read_json(_record_of(out))
        before, size = record["settings"], record["bytes"]
        other = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
        _checks_in(record)
    except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{out} is there, and nothing says what it was made from", hint) from error
    if other:
        raise UsageError(f"{out} is there, and was made with another {', '.join(other)}: see {_record_of(out)}", hint)
    if out.stat().st_size != size:
        raise UsageError(f"{out} is there, and has changed since it was made ({size:,} bytes)", hint)
    return dict(record)


def _checks_in(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"height": check["height"], "width": check["width"], "difference": float(check["difference"])}
        for check in record["checked"]
    ]


def _result(out: Path, settings: dict[str, Any], checked: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "out": str(out),
        "format": settings["format"],
        "output": settings["output"],
        "sha256": sha256_file(out),
        "classes": settings["classes"],
        "difference": max(check["difference"] for check in checked),
        "checked": checked,
    }


def require_onnx() -> None:
    """Say in one line how to install what ONNX needs, where it is missing.

    Raises:
        UsageError: a package is missing.
    """
    missing = [package for package in EXTRA if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"--format onnx needs {', '.join(missing)}", f"pip install {' '.join(EXTRA)}")


def _other(form: Format) -> str:
    return f"try --format {'torchscript' if form == 'onnx' else 'onnx'}, or another backbone"


def _noise(size: tuple[int, int]) -> Tensor:
    drawn = np.random.default_rng(size).integers(0, 256, (1, 3, *size), dtype=np.uint8)
    return torch.from_numpy(drawn)


def _reference(network: Network, image: Tensor, output: Output) -> Tensor:
    logits = network.model(network.model.backbone.normalise(image))
    logits = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)
    return logits if output == "logits" else logits.argmax(1).to(torch.uint8)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    if theirs.dtype == torch.uint8:
        return (ours != theirs).float().mean().item()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)).item()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters write notes on their own progress: those on stdout go to stderr, warnings and logs nowhere."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _torchscript(portable: Portable, example: Tensor, metadata: dict[str, str]) -> bytes:
    traced = torch.jit.trace(portable, example, check_trace=False).requires_grad_(
        False
    )  # its logits are arrays at once
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files=metadata)
    return buffer.getvalue()


def _read_torchscript(data: bytes) -> Callable[[Tensor], Tensor]:
    with quiet():
        loaded = torch.jit.load(io.BytesIO(data), map_location="cpu")

    def run(image: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # compiling for a size takes longer than running once
            logits: Tensor = loaded(image)
            return logits

    return run


def _onnx(portable: Portable, example: Tensor, metadata: dict[str, str]) -> bytes:
    free = torch.export.Dim.DYNAMIC  # a named Dim with a range fails: the exporter misjudges the bounds of inner sizes
    program: Any = torch.onnx.export(
        portable,
        (example,),
        dynamo=True,
        dynamic_shapes=({2: free, 3: free},),
        input_names=["image"],
        output_names=[portable.output],
        verbose=False,
    )
    for key, value in metadata.items():
        program.model.metadata_props[key] = value
    data: bytes = program.model_proto.SerializeToString()
    return data


def _read_onnx(data: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
