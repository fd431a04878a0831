"""Class vectors and softmax loss of ReCAM by loops."""

import numpy as np


def pooled(features, activations):
    """[B, C, D] by loops."""
    count, depth, height, width = features.shape
    means = np.zeros((count, activations.shape[1], depth))
    for image in range(count):
        for index in range(activations.shape[1]):
            plane = np.maximum(activations[image, index], 0)
            plane = plane / (plane.max() + 1e-5)
            for row in range(height):
                for column in range(width):
                    means[image, index] += plane[row, column] * features[image, :, row, column] / (height * width)
    return means


def loss_by_loops(features, tags, first, second):
    """Mean over images of the mean over tags of the cross-entropy; `first`, `second`: class weights [C, D]."""
    vectors = pooled(features, np.einsum("cd,bdhw->bchw", first, features))
    total = 0.0
    for image in range(len(features)):
        classes = [index for index in range(len(first)) if tags[image, index]]
        for index in classes:
            logits = second @ vectors[image, index]
            total += (np.log(np.exp(logits).sum()) - logits[index]) / len(classes)
    return total / len(features)
