"""An exported ONNX file in whole numbers of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsss_cli.errors import WeightsError, WsssError
from wsss_cli.interchange.export import quiet

LAYERS = ["Conv", "MatMul", "Gemm"]


def quantise(data: bytes, images: Iterator[np.ndarray], folder: Path) -> bytes:
    """Static quantisation: weights by channel, activations by the largest and smallest values that images give.

    Convolutions and matrix products are computed in 8 bits (QDQ: the file says where numbers change their kind);
    weights take 7 of them, as sums of products of 8 would overflow on processors without VNNI.

    Args:
        data: a file that `export.converted` made.
        images: to calibrate with, uint8 [1, 3, H, W]; what they raise ends the work.
        folder: an empty one for files in between.
    Raises:
        WeightsError: the network cannot be quantised.

    Source: onnxruntime.quantization.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {"image": image}

    plain, prepared, small = (folder / f"{name}.onnx" for name in ("plain", "prepared", "small"))
    plain.write_bytes(data)
    try:
        with quiet():
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(small),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=LAYERS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    except WsssError:  # of the images
        raise
    except Exception as error:  # onnxruntime raises errors of many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"this network cannot be written in 8 bits: {reason}", "leave out --int8") from error
    model: Any = onnx.load(str(small))
    del model.metadata_props[:]
    for entry in onnx.load_from_string(data).metadata_props:
        words = f"{entry.value}, in 8 bits" if entry.key == "origin" else entry.value
        model.metadata_props.add(key=entry.key, value=words)
    whole: bytes = model.SerializeToString()
    return whole
