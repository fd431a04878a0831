"""Cross-entropy with balance and weights, a pixel at a time."""

import math

import numpy as np
from references.loops import resized


def cross_entropy_by_pixel(logits, target, weight, balance, average):
    """Pixel by pixel, as the docstring has it; logits [B, K, h, w] are brought to the size of the target."""
    logits = resized(logits, target.shape[1:])
    costs = {"background": [], "objects": []}
    for b, y, x in np.ndindex(*target.shape):
        label = int(target[b, y, x])
        if label != 255:
            z = logits[b, :, y, x]
            cost = math.log(np.exp(z).sum()) - z[label]
            costs["objects" if label else "background"].append(float(weight[b, y, x]) * cost)
    labelled = sum(map(len, costs.values()))
    divisor = target.size if average == "all" else labelled
    if balance == "none":
        return sum(map(sum, costs.values())) / divisor
    return sum(0.5 * sum(side) / len(side) for side in costs.values()) * labelled / divisor
