"""An exported ONNX file in the place of a network: onnxruntime computes it, and all else is as for a network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_cli.config.evaluation import EvalConfig
from wsss_cli.config.schema import DatasetConfig, Preset
from wsss_cli.config.train import TrainConfig
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import read_json
from wsss_cli.inference.network import Network
from wsss_cli.labels import voc_palette
from wsss_cli.models.segmentor import Segmentor
from wsss_cli.ranks.who import cores_here

AGAIN = "export it again; where it is newer than this onnxruntime knows: pip install -U onnxruntime"


def is_onnx(path: Path) -> bool:
    """Whether a path is a file that is named as ONNX files are."""
    return path.suffix.lower() == ".onnx" and path.is_file()


class OnnxSegmentor(nn.Module):
    """An exported file where photographs are predicted: as a `Segmentor`, it has a `backbone` that normalises.

    Attributes:
        output: what the file gives, 'labels' or 'logits'.
        metadata: of the file: 'classes' and 'eval' (JSON), 'origin'.

    Args:
        file: its path, or its bytes.
    Raises:
        UsageError: onnxruntime is not installed.
        WeightsError: the file cannot be read, or `wsss export` has not written it.
    """

    def __init__(self, file: Path | bytes) -> None:
        super().__init__()
        if importlib.util.find_spec("onnxruntime") is None:
            raise UsageError("an ONNX file needs onnxruntime", "pip install onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = cores_here(), 3
        what, providers = (file if isinstance(file, bytes) else str(file)), ["CPUExecutionProvider"]
        try:
            self.session = onnxruntime.InferenceSession(what, options, providers=providers)
        except Exception as error:  # onnxruntime raises errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise WeightsError(f"{_name(file)} cannot be read by onnxruntime: {reason}", AGAIN) from error
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        inputs = [(one.name, one.type) for one in self.session.get_inputs()]
        self.output: str = self.session.get_outputs()[0].name
        known = inputs == [("image", "tensor(uint8)")] and self.output in ("labels", "logits")
        if not known or "classes" not in self.metadata:
            raise WeightsError(
                f"{_name(file)} is an ONNX file that wsss export has not written", "name one that it has"
            )
        self.classes = tuple(map(str, json.loads(self.metadata["classes"])))

    @property
    def backbone(self) -> OnnxSegmentor:
        return self

    def normalise(self, x: Tensor) -> Tensor:
        """The file normalises its images itself."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """RGB in 0..255, uint8 [B, 3, H, W] -> float32 [B, K, H, W]: logits, or 1 for the class of a pixel."""
        images = x.cpu().numpy()
        each = [torch.from_numpy(self.session.run(None, {"image": images[n : n + 1]})[0]) for n in range(len(images))]
        scores = torch.cat(each).to(x.device)
        if self.output == "logits":
            return scores
        return F.one_hot(scores.long(), len(self.classes)).permute(0, 3, 1, 2).float()


def as_segmentor(model: OnnxSegmentor) -> Segmentor:
    """The file where a network is wanted that predicts: it has what that takes, and no layers."""
    return cast("Segmentor", model)


def open_onnx(file: Path) -> Network:
    """An exported file as a network, computed in onnxruntime on the CPU.

    Returns:
        A network whose `model` is an `OnnxSegmentor`; photographs are resized as the exported network wants them; the
        data set is the one that FILE.json names.
    Raises:
        UsageError: onnxruntime is not installed.
        WeightsError: the file is damaged, or `wsss export` has not written it.
    """
    model = OnnxSegmentor(file)
    import onnxruntime

    views = EvalConfig.model_validate_json(model.metadata.get("eval", "{}"))
    dataset = ""
    try:
        dataset = str(read_json(file.with_name(f"{file.name}.json"))["dataset"])
    except (DataError, LookupError, TypeError):  # moved without it, or of an earlier version
        dataset = ""
    preset = Preset(
        name=file.stem, dataset=DatasetConfig(path=dataset), train=TrainConfig(precision="fp32"), eval=views
    )
    origin = f"{model.metadata.get('origin', '')}, {file.name} in onnxruntime {onnxruntime.__version__}".strip(", ")
    return Network(as_segmentor(model), preset, model.classes, voc_palette(len(model.classes)), 0, dataset, origin)


def _name(file: Path | bytes) -> str:
    return "the file" if isinstance(file, bytes) else str(file)
