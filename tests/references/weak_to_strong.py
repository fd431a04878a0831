"""Weak to strong consistency, a pixel at a time: strong views, rectangles of other crops, the loss."""

import numpy as np
from references.loops import resized, softmax


def luma(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def turned(pixel, hue):
    """Colours turned around the axis of greys, of YIQ as the NTSC had it."""
    y, i, q = (
        np.array(row) @ pixel for row in ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
    )
    turn = np.exp(2j * np.pi * hue) * complex(i, q)
    system = [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]
    return np.linalg.solve(system, [y, turn.real, turn.imag])


def recoloured(image, inside, brightness, contrast, saturation, hue, grey, sigma):
    """One crop [H, W, 3] by its draws, as bytes; `inside` is False where padded."""
    height, width = inside.shape
    x = np.clip(image.astype(float) * brightness, 0, 255)
    middle = np.mean([luma(x[at]) for at in np.ndindex(height, width) if inside[at]])
    for at in np.ndindex(height, width):
        pixel = np.clip(middle + contrast * (x[at] - middle), 0, 255)
        pixel = np.clip(luma(pixel) + saturation * (pixel - luma(pixel)), 0, 255)
        pixel = np.clip(turned(pixel, hue), 0, 255)
        x[at] = luma(pixel) if grey else pixel
    if sigma:
        reach = range(-6, 7)
        weights = {(a, b): np.exp(-(a * a + b * b) / (2 * sigma**2)) for a in reach for b in reach}
        blurred = np.zeros_like(x)
        for y, c in np.ndindex(height, width):
            for (a, b), weight in weights.items():
                near = min(max(y + a, 0), height - 1), min(max(c + b, 0), width - 1)
                blurred[y, c] += weight * x[near]
        x = blurred / sum(weights.values())
    x[~inside] = 0
    return np.round(x).astype(np.uint8)


def mixed(own, everything, box, partner):
    """Arrays [B, H, W, ...] with a rectangle of another one of all in each."""
    new = own.copy()
    for b, (top, bottom, left, right) in enumerate(box):
        new[b, top:bottom, left:right] = everything[partner[b], top:bottom, left:right]
    return new


def agreement_by_pixel(logits, probability, counted, threshold):
    """The loss of logits [B, K, h, w] with what probabilities [B, K, H, W] are sure of; `counted` [B, H, W]."""
    cost, pixels = 0.0, 0
    for b in range(len(logits)):
        chance = softmax(resized(logits[b], probability.shape[2:]))
        for y, x in np.ndindex(*counted.shape[1:]):
            if counted[b, y, x]:
                pixels += 1
                best = probability[b, :, y, x].argmax()
                if probability[b, best, y, x] >= threshold:
                    cost -= np.log(chance[best, y, x])
    return cost / max(pixels, 1)
