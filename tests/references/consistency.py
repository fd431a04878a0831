"""SEAM and Puzzle-CAM, an image and a pixel at a time in float64."""

import numpy as np
from references.loops import resized, tag_loss


def planes_by_loops(activations, tags):
    """Scores [C+1, h, w] of one image, the background first."""
    maps = np.zeros_like(activations)
    for index, tag in enumerate(tags):
        if tag:
            maps[index] = np.maximum(activations[index], 0)
            maps[index] /= maps[index].max() + 1e-5
    return np.concatenate([1 - maps.max(0, keepdims=True), maps])


def affinity_by_loops(features):
    """[n, n] of the features of n pixels, [n, E]; columns sum to 1."""
    affinity = np.zeros((len(features), len(features)))
    for a, b in np.ndindex(*affinity.shape):
        norm = np.linalg.norm(features[a]) * np.linalg.norm(features[b])
        affinity[a, b] = max(features[a] @ features[b] / norm, 0)
    return affinity / affinity.sum(0)


def pixel_features(x, maps, third, fourth, joint):
    """What SEAM compares pixels by, [n, E], of an image and the last two feature maps; weights of 1x1 convolutions."""
    size = maps[1].shape[1:]
    parts = [
        resized(x, size),
        resized(np.maximum(np.einsum("ed,dhw->ehw", third, maps[0]), 0), size),
        np.maximum(np.einsum("ed,dhw->ehw", fourth, maps[1]), 0),
    ]
    return (joint @ np.concatenate(parts).reshape(joint.shape[1], -1)).T


def refined_by_loops(activations, affinity, tags):
    """[C+1, h, w] of one image: the mean of all pixels, weighted by affinity; of the classes, the best at each."""
    source = planes_by_loops(activations, tags)
    shape = source.shape
    source = source.reshape(len(source), -1)
    for pixel in range(source.shape[1]):
        best = source[1:, pixel].max()
        source[1:, pixel] = [value if value == best else 0.0 for value in source[1:, pixel]]
    refined = np.zeros_like(source)
    for pixel, other in np.ndindex(*affinity.shape):
        refined[:, pixel] += affinity[other, pixel] * source[:, other]
    return refined.reshape(shape)


def correlation_by_loops(refined, planes, hard):
    """Mean over the share `hard` of an image's values that are farthest from the winners of the other view."""
    distances = []
    for index, y, x in np.ndindex(*planes.shape):
        target = planes[index, y, x] if planes[index, y, x] == planes[:, y, x].max() else 0.0
        distances.append(abs(target - refined[index, y, x]))
    return np.mean(sorted(distances)[::-1][: max(int(len(distances) * hard), 1)])


def seam_by_loops(full, small, tags, hard):
    """Loss of the tags, ER and ECR. A view: one (activations [C, h, w], features of its pixels [n, E]) an image."""
    logits = [[activations.mean((1, 2)) for activations, _ in view] for view in (full, small)]
    er, ecr = [], []
    for (large, large_pixels), (little, little_pixels), image_tags in zip(full, small, tags, strict=True):
        size = little.shape[1:]
        planes, little_planes = resized(planes_by_loops(large, image_tags), size), planes_by_loops(little, image_tags)
        refined = resized(refined_by_loops(large, affinity_by_loops(large_pixels), image_tags), size)
        little_refined = refined_by_loops(little, affinity_by_loops(little_pixels), image_tags)
        er.append(np.abs(planes - little_planes).mean())
        ecr.append(correlation_by_loops(refined, little_planes, hard))
        ecr[-1] += correlation_by_loops(little_refined, planes, hard)
    return np.mean([tag_loss(view, tags) for view in logits]), np.mean(er), np.mean(ecr)


def puzzle_by_loops(features, weight, x, tags):
    """Losses of the tags of images [B, 3, H, W] and of their tiles, and the distance; `features` takes one image."""
    height, width = (side // 2 for side in x.shape[2:])
    whole, merged, distance = [], [], []
    for image, image_tags in zip(x, tags, strict=True):
        maps = np.einsum("cd,dhw->chw", weight, features(image))
        halves = [image[:, :height], image[:, height:]]
        rows = [[features(half[:, :, :width]), features(half[:, :, width:])] for half in halves]
        joined = np.concatenate([np.concatenate(row, 2) for row in rows], 1)
        joined = np.einsum("cd,dhw->chw", weight, joined)
        whole.append(maps.mean((1, 2)))
        merged.append(joined.mean((1, 2)))
        distance.append(np.abs(maps - resized(joined, maps.shape[1:])) * image_tags[:, None, None])
    return tag_loss(whole, tags), tag_loss(merged, tags), np.mean(distance)
