"""Layers of networks, a value at a time in float64: what the plain references of several tests are made of."""

import numpy as np


class Draws:
    """Random numbers that were drawn before, in the place of a generator."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def random(self):
        return float(next(self.numbers))

    def integers(self, count):
        return int(self.random() * count)


def resized(planes, size, smooth=False):
    """Bilinear, half-pixel centres, [..., h, w] -> [..., *size]; `smooth`: over all pixels that a new one covers."""
    for axis, after in ((-2, size[0]), (-1, size[1])):
        planes = np.moveaxis(np.moveaxis(planes, axis, -1) @ _shares(planes.shape[axis], after, smooth), -1, axis)
    return planes


def _shares(before, after, smooth):
    """How much each of `before` pixels counts in each of `after`, [before, after]."""
    shares, step = np.zeros((before, after)), before / after
    reach = max(step, 1.0) if smooth else 1.0
    for new in range(after):
        centre = (new + 0.5) * step - 0.5
        if not smooth:
            centre = min(max(centre, 0.0), before - 1.0)  # the edge goes on for ever; smooth ones leave out what is off
        for old in range(before):
            shares[old, new] = max(1 - abs(old - centre) / reach, 0.0)
    return shares / shares.sum(0)


def convolved(x, kernel, bias, stride, padding):
    """[D, H, W] under a kernel [E, D, k, k]: [E, h, w]."""
    side, padded = kernel.shape[-1], np.pad(x.astype(float), ((0, 0), (padding, padding), (padding, padding)))
    size = [(extent - side) // stride + 1 for extent in padded.shape[1:]]
    output = np.zeros((len(kernel), *size))
    for e, y, x_ in np.ndindex(*output.shape):
        row, column = y * stride, x_ * stride
        output[e, y, x_] = (kernel[e] * padded[:, row : row + side, column : column + side]).sum() + bias[e]
    return output


def convolved_back(slope, kernel, size, stride, padding):
    """The derivative of `convolved` by its input [D, *size], times a slope [E, h, w]."""
    side = kernel.shape[-1]
    gradient = np.zeros((kernel.shape[1], size[0] + 2 * padding, size[1] + 2 * padding))
    for e, y, x in np.ndindex(*slope.shape):
        row, column = y * stride, x * stride
        gradient[:, row : row + side, column : column + side] += slope[e, y, x] * kernel[e]
    return gradient[:, padding : padding + size[0], padding : padding + size[1]]


def softmax(x):
    """Over the first axis."""
    exponential = np.exp(x - x.max(0))
    return exponential / exponential.sum(0)


def tag_loss(logits, tags):
    """Mean binary cross-entropy of sigmoids, over images and classes."""
    costs = []
    for logit, tag in zip(np.ravel(logits), np.ravel(tags), strict=True):
        probability = 1 / (1 + np.exp(-logit))
        costs.append(-np.log(probability if tag else 1 - probability))
    return float(np.mean(costs))
