"""Affinities of pixels, the walk along them, and losses and labels for learning them, pair by pair in float64."""

import itertools
import math

import numpy as np
import torch


def loop_path(y0, x0, y1, x1):
    """Pixels of the rectangle of two pixels that are nearer than 1 to the line through them, by the cross product."""
    pixels = []
    for y in range(min(y0, y1), max(y0, y1) + 1):
        for x in range(min(x0, x1), max(x0, x1) + 1):
            cross = (y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)
            if abs(cross) / math.dist((y0, x0), (y1, x1)) < 1:
                pixels.append((y, x))
    return pixels


def loop_affinity(edge, offsets):
    h, w = edge.shape
    affinity = np.zeros((len(offsets), h, w))
    for k, (dy, dx) in enumerate(offsets):
        for y in range(h):
            for x in range(w):
                if 0 <= y + dy < h and 0 <= x + dx < w:
                    affinity[k, y, x] = 1 - max(edge[p] for p in loop_path(y, x, y + dy, x + dx))
    return affinity


def dense_transition(affinities, offsets):
    """Column-normalised matrix [n, n] of the pairs, both ways, and of each pixel with itself; float64."""
    _, h, w = affinities.shape
    matrix = np.eye(h * w)
    for plane, (dy, dx) in zip(np.asarray(affinities, np.float64), offsets, strict=True):
        for y in range(h):
            for x in range(w):
                if y + dy < h and 0 <= x + dx < w:
                    i, j = y * w + x, (y + dy) * w + x + dx
                    matrix[i, j] = matrix[j, i] = plane[y, x]
    return matrix / matrix.sum(0)


def psa_by_matrix(cam, features, radius, beta, iterations, alpha):
    """PSA's scores as they are defined: a power of the dense matrix of all pairs nearer than `radius`, float64."""
    _, h, w = features.shape
    background = (1 - cam.max(0, keepdims=True)) ** alpha
    pooled = np.zeros((1 + len(cam), h * w))
    for c, plane in enumerate(np.concatenate([background, cam])):
        pooled[c] = [plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for y, x in np.ndindex(h, w)]
    matrix = np.eye(h * w)
    for (i, (y, x)), (j, (v, u)) in itertools.combinations(enumerate(np.ndindex(h, w)), 2):
        if math.dist((y, x), (v, u)) < radius:
            matrix[i, j] = matrix[j, i] = math.exp(-beta * np.abs(features[:, y, x] - features[:, v, u]).mean())
    walked = pooled @ np.linalg.matrix_power(matrix / matrix.sum(0), iterations)
    return (walked[1:] / (walked[1:] + walked[0])).reshape(-1, h, w)


EPS = 1e-5


def loop_loss(affinity, labels, radius):
    """Mean -log terms of every pair nearer than `radius`; `affinity(b, y, x, v, u)` is a scalar tensor."""
    terms = {"background": [], "object": [], "different": []}
    batch, h, w = labels.shape
    for b in range(batch):
        for (y, x), (v, u) in itertools.combinations(np.ndindex(h, w), 2):
            first, second = labels[b, y, x], labels[b, v, u]
            if math.dist((y, x), (v, u)) >= radius or 255 in (first, second):
                continue
            a = affinity(b, y, x, v, u)
            if first != second:
                terms["different"].append(-torch.log(1 + EPS - a))
            else:
                terms["object" if first else "background"].append(-torch.log(a + EPS))
    mean = {name: torch.stack(values).mean() if values else torch.zeros(()) for name, values in terms.items()}
    return mean["background"] / 4 + mean["object"] / 4 + mean["different"] / 2


def boundary_reference(logits, labels, radius):
    """IRN's loss of logits float64 [B, H, W]; automatic differentiation goes through it."""
    edge = torch.sigmoid(logits)

    def affinity(b, y, x, v, u):
        return 1 - torch.stack([edge[b, row, column] for row, column in loop_path(y, x, v, u)]).max()

    return loop_loss(affinity, labels, radius)


def feature_reference(features, labels, radius):
    """PSA's loss of features float64 [B, D, H, W]; automatic differentiation goes through it."""

    def affinity(b, y, x, v, u):
        return torch.exp(-(features[b, :, y, x] - features[b, :, v, u]).abs().mean())

    return loop_loss(affinity, labels, radius)


def random_labels(seed, shape):
    labels = np.random.default_rng(seed).choice([0, 0, 1, 2, 255], shape)
    return labels, torch.from_numpy(labels.astype(np.uint8))


def label_by_pixel(cam, classes, alpha_low, alpha_high, crf):
    """uint8 [H, W]; `crf` makes a posterior of an energy [1 + C, H, W]."""
    posteriors = []
    for alpha in (alpha_low, alpha_high):
        scores = np.concatenate([(1 - cam.max(0, keepdims=True)) ** alpha, cam])
        posteriors.append(crf(-np.log(np.maximum(scores, 1e-5))))
    labels = np.zeros(cam.shape[1:], np.uint8)
    for y, x in np.ndindex(*labels.shape):
        much, little = (int(np.argmax(posterior[:, y, x])) for posterior in posteriors)
        if much > 0:  # a class although there is much background
            labels[y, x] = classes[much - 1]
        elif little > 0:
            labels[y, x] = 255
    return labels
