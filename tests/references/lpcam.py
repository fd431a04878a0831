"""Prototypes of LPCAM and maps of them, a point at a time in float64."""

import numpy as np


def lloyd(points, clusters, rng):
    """K-means in float64, a point at a time; starts as k-means++ draws them."""
    points = [np.asarray(point, float) for point in points]
    if len(points) <= clusters:
        return np.array(points)
    centres = [points[int(rng.integers(len(points)))]]
    while len(centres) < clusters:
        nearest = [min(((point - centre) ** 2).sum() for centre in centres) for point in points]
        left, chosen = rng.random() * sum(nearest), 0
        while chosen < len(points) - 1 and nearest[chosen] <= left:
            left -= nearest[chosen]
            chosen += 1
        centres.append(points[chosen])
    before = None
    while True:  # the package stops after 50 rounds; these examples take fewer
        labels = [int(np.argmin([((point - centre) ** 2).sum() for centre in centres])) for point in points]
        if labels == before:
            return np.array(centres)
        before = labels
        for index in range(clusters):
            members = [point for point, label in zip(points, labels, strict=True) if label == index]
            if members:
                centres[index] = np.mean(members, axis=0)


def prototypes_by_loops(maps, activations, weight, index, config, rng):
    """Class and context prototypes of feature maps [n, D, h, w] and CAMs [n, h, w] of a class, in float64."""
    inside, outside = [], []
    for image, activation in enumerate(activations):
        for y, x in np.ndindex(*activation.shape):
            if activation.max() > 0:
                above = activation[y, x] > config.tau * activation.max()
                (inside if above else outside).append(maps[image, :, y, x])

    def scored(points):
        exponentials = [(np.exp(weight @ centre), centre) for centre in lloyd(points, config.clusters, rng)]
        return [(float(e[index] / e.sum()), centre) for e, centre in exponentials]

    by_class, by_context = scored(inside), scored(outside)
    class_centres = [centre for score, centre in by_class if score > config.class_score]
    context_centres = [centre for score, centre in by_context if score < config.context_score]
    class_centres = class_centres or [max(by_class, key=lambda pair: pair[0])[1]]
    return np.array(class_centres), np.array(context_centres or [min(by_context, key=lambda pair: pair[0])[1]])


def cosine(a, b):
    return float(a @ b) / max(float(np.sqrt(a @ a) * np.sqrt(b @ b)), 1e-12)


def maps_by_loops(features, by_class, classes):
    """[C, h, w] of a feature map [D, h, w]; `by_class`: (class prototypes, context prototypes)."""
    maps = np.zeros((classes, *features.shape[1:]))
    for index, y, x in np.ndindex(*maps.shape):
        if index in by_class:
            class_cosines, context_cosines = ([cosine(features[:, y, x], p) for p in part] for part in by_class[index])
            maps[index, y, x] = max(np.mean(class_cosines) - np.mean(context_cosines), 0.0)
    return maps
