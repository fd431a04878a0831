"""Areas at a threshold, histograms and Otsu's threshold, a pixel at a time."""

from fractions import Fraction

import numpy as np

Image = tuple[np.ndarray, tuple[int, ...], np.ndarray]


def areas_by_pixel(images: list[Image], num_classes: int, threshold: float) -> dict[str, np.ndarray]:
    """Areas at one threshold as the definition has them: the best score above it, else background.

    An image: scores [C, H, W], the class of each, the true mask [H, W].
    """
    areas = {name: np.zeros(num_classes, int) for name in ("intersect", "pred", "label")}
    for scores, classes, truth in images:
        for y, x in np.ndindex(*truth.shape):
            best, label = 0, truth[y, x]
            if len(classes) and scores[:, y, x].max() > np.asarray(threshold, scores.dtype):
                best = classes[int(scores[:, y, x].argmax())]
            if label != 255:
                areas["pred"][best] += 1
                if label < num_classes:
                    areas["label"][label] += 1
                    areas["intersect"][label] += best == label
    return {**areas, "union": areas["pred"] + areas["label"] - areas["intersect"]}


def otsu_by_fractions(counts):
    """The middle of the cuts with the most variance between, in whole numbers, so that equally good cuts are equal."""
    counts = [int(count) for count in counts]
    total, moment = sum(counts), sum(level * count for level, count in enumerate(counts))
    most, cuts = Fraction(0), []
    for cut in range(255):
        below = sum(counts[: cut + 1])
        if 0 < below < total:
            part = sum(level * count for level, count in enumerate(counts[: cut + 1]))
            between = Fraction((total * part - below * moment) ** 2, below * (total - below))
            cuts = [*cuts, cut] if between == most else [cut] if between > most else cuts
            most = max(most, between)
    return (cuts[0] + cuts[-1]) / 2 / 255 if cuts else None


def histogram_by_pixel(images, num_classes):
    """[K, 256]; an image: (scores [C, H, W] in 255ths, the class of each)."""
    counts = np.zeros((num_classes, 256), int)
    for levels, classes in images:
        for y, x in np.ndindex(*levels.shape[1:]):
            if len(classes):
                best = int(np.argmax(levels[:, y, x]))
                counts[classes[best], levels[best, y, x]] += 1
    return counts
