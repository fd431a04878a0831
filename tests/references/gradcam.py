"""Grad-CAM of two convolutions by the chain rule, in float64."""

import numpy as np
from references.loops import convolved, convolved_back


def by_chain_rule(x, kernels, biases, shapes, weight, layer):
    """Maps [C, h, w] of an image [3, H, W] under two convolutions, each with a ReLU behind it, in float64.

    Args:
        kernels, biases, shapes: of both; a shape is (stride, padding).
        weight: of the classes, [C, D].
        layer: 'first' or 'second' convolution, before its ReLU, or 'last', the last feature map.
    """
    first = convolved(x, kernels[0], biases[0], *shapes[0])
    second = convolved(np.maximum(first, 0), kernels[1], biases[1], *shapes[1])
    cams = []
    for row in weight:
        maps = np.maximum(second, 0)
        slope = np.ones_like(maps) * row[:, None, None] / maps[0].size  # the score is the mean over the pixels
        if layer != "last":
            maps, slope = second, slope * (second > 0)
        if layer == "first":
            maps, slope = first, convolved_back(slope, kernels[1], first.shape[1:], *shapes[1]) * (first > 0)
        cams.append(sum(slope[k].mean() * maps[k] for k in range(len(maps))))
    return np.maximum(cams, 0)
