"""Training on noisy masks, a pixel at a time: targets, the mean teacher, the label update."""

import numpy as np
from references.loops import resized, softmax


def probability_by_scale(network, x, tags, scales):
    """Mean of the softmax within the tags over scales [K, H, W] of an image [3, H, W]; `network` gives logits."""
    total = 0.0
    for scale in scales:
        logits = network(resized(x, [max(round(side * scale), 1) for side in x.shape[1:]]))
        logits = resized(logits, x.shape[1:])
        logits[1:][np.asarray(tags[1:]) == 0] = -np.inf
        total = total + softmax(logits)
    return total / len(scales)


def targets_by_pixel(batch, noise, corrected, averaged, taught):
    """(label, weight) of every pixel, in the order of the methods.

    Args:
        batch: arrays 'mask', 'confidence' and 'size'.
        noise: which methods there are, a `NoiseConfig`.
        corrected: classes whose labels are replaced.
        averaged, taught: probabilities [B, K, H, W] over the scales of the update, and the teacher's.
    """
    labels, weights = batch["mask"].astype(int), np.ones(batch["mask"].shape)
    for b, y, x in np.ndindex(*labels.shape):
        label, weight, trust = labels[b, y, x], 1.0, batch["confidence"][b, y, x] / 255
        if noise.confidence == "weight":
            weight = trust
        elif noise.confidence == "ignore" and trust < noise.min_confidence:
            label = 255
        if noise.update and label in corrected:
            p = averaged[b, :, y, x]
            if p.argmax() != label and p.max() > noise.update.threshold:
                label = p.argmax()
                weight = p.max() if noise.confidence == "weight" else weight
        if noise.teacher:
            q, (rows, columns) = taught[b, :, y, x], batch["size"][b]
            if label == 255 and y < rows and x < columns and q.max() >= noise.teacher.threshold:
                label, weight = q.argmax(), noise.teacher.weight * q.max()
            if noise.uncertainty:
                weight *= steadiness_reference(q, noise.uncertainty.scales)
        labels[b, y, x], weights[b, y, x] = label, weight
    return labels, weights


def averaged(values, decay):
    """The teacher's value after each iteration; `values`: the network's, the first before training began."""
    teacher, averages = np.asarray(values[0], float), []
    for step, value in enumerate(values[1:], 1):
        rate = min(1 - 1 / (step + 1), decay)
        teacher = rate * teacher + (1 - rate) * value
        averages.append(teacher)
    return np.array(averages)


def steadiness_reference(q, scales):
    """One pixel: scale the responses of the objects, normalise, take the variance of each class, add up."""

    def uncertainty(q):
        scaled = np.array([np.concatenate([q[:1], s * q[1:]]) for s in scales])
        scaled /= scaled.sum(1, keepdims=True)
        return scaled.var(0).sum()

    return max(1 - uncertainty(q) / uncertainty(np.array([0.5, 0.5])), 0.0)


def curve(points, a=0.8, b=0.5, c=1.0):
    x = np.arange(1, points + 1)
    return a * (1 - np.exp(-b * x**c))


def drop_by_search(iou):
    """The drop of the slope, of the curve with the least squares that ever finer grids of b and c find.

    NaN with fewer than five points.
    """
    iou = np.asarray(iou, float)
    x = np.arange(1, len(iou) + 1)[np.isfinite(iou)]
    y = iou[np.isfinite(iou)]
    if len(y) < 5:
        return np.nan

    def misfit(b, c):
        shape = 1 - np.exp(-b * x**c)
        a = min(max((shape @ y) / (shape @ shape), 0.0), 1.0)  # the best one for this b and c
        return ((a * shape - y) ** 2).sum()

    middle, reach = np.array([0.0, 1.5]), np.array([3.0, 1.4])  # of log b and c
    for _ in range(60):
        grid = [
            (middle[0] + i * reach[0] / 5, middle[1] + j * reach[1] / 5) for i in range(-5, 6) for j in range(-5, 6)
        ]
        grid = [(min(max(b, np.log(1e-3)), np.log(20.0)), min(max(c, 0.05), 3.0)) for b, c in grid]
        middle = np.array(min(grid, key=lambda at: misfit(np.exp(at[0]), at[1])))
        reach = reach * 0.7
    b, c, last = np.exp(middle[0]), middle[1], len(iou)
    return 1 - last ** (c - 1) * np.exp(-b * (last**c - 1))


def iou_by_loops(predictions, labels, classes):
    """IoU of each class over all pixels of a part; NaN without a label of it."""
    hits, predicted, labelled = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for prediction, label in zip(predictions.ravel(), labels.ravel(), strict=True):
        if label != 255:
            predicted[prediction] += 1
            labelled[label] += 1
            hits[label] += prediction == label
    return np.array(
        [hits[c] / (labelled[c] + predicted[c] - hits[c]) if labelled[c] else np.nan for c in range(classes)]
    )
