"""What methods.npz has of training on noisy masks; see make_methods.py."""

import itertools

import numpy as np
from references import cross_entropy, noise
from references.loops import convolved, tag_loss

from wsss_cli.config.noise import NoiseConfig

CASES = {
    "ignore": {"confidence": "ignore", "min_confidence": 0.7, "teacher": {"threshold": 0.55, "weight": 0.5}},
    "update": {"confidence": "weight", "update": {"threshold": 0.55}},
    "all": {
        "confidence": "weight",
        "update": {"threshold": 0.55, "scales": (0.7, 1.0)},
        "teacher": {"threshold": 0.6},
        "uncertainty": {"scales": (0.5, 1.0, 3.0)},
    },
}


def made():
    return losses() | teacher() | update() | targets()


def losses():
    rng = np.random.default_rng(41)
    logits, weight = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), rng.random((2, 8, 10)).astype(np.float32)
    target = rng.choice([0, 0, 0, 1, 2, 255], (2, 8, 10)).astype(np.uint8)
    found = {"loss_logits": logits, "loss_target": target, "loss_weight": weight}
    values = [
        cross_entropy.cross_entropy_by_pixel(logits.astype(float), target, own, balance, average)
        for average, balance, own in itertools.product(
            ("all", "valid"), ("none", "fg-bg"), (np.ones_like(weight), weight)
        )
    ]
    scores, tags = rng.normal(size=(4, 5)).astype(np.float32), rng.integers(0, 2, (4, 5)).astype(np.uint8)
    found |= {"loss_values": values, "tags_logits": scores, "tags_true": tags}
    return found | {"tags_loss": tag_loss(scores.astype(float), tags)}


def teacher():
    rng = np.random.default_rng(42)
    weights, q = rng.normal(size=(7, 5)).astype(np.float32), rng.dirichlet(np.full(4, 0.5), (1, 3, 5))
    q = np.moveaxis(q, -1, 1)
    steady = np.zeros((1, 3, 5))
    for b, y, x in np.ndindex(*steady.shape):
        steady[b, y, x] = noise.steadiness_reference(q[b, :, y, x], (0.5, 1.0, 3.0))
    found = {"teacher_weights": weights, "teacher_means": noise.averaged(weights.astype(float), 0.7)}
    return found | {"steady_q": q, "steady_weight": steady}


def update():
    """Predictions of twelve parts; one class is learned sooner than the other, the last one not to the end."""
    rng = np.random.default_rng(49)
    labels = rng.choice([0, 0, 1, 2, 255], (12, 1, 16, 16)).astype(np.uint8)
    labels[3][labels[3] == 2] = 0  # a part without the last class: it is predicted there, but nothing is known of it
    learned = [noise.curve(12, a, b) for a, b in ((0.95, 0.5), (0.9, 0.3), (0.9, 0.1))]
    predictions = rng.integers(0, 3, labels.shape).astype(np.uint8)
    for index, curve in enumerate(learned):
        right = (rng.random(labels.shape) < curve[:, None, None, None]) & (labels == index)
        predictions[right] = index
    iou = np.array([noise.iou_by_loops(*part, 3) for part in zip(predictions, labels, strict=True)])
    drops = np.array([[noise.drop_by_search(iou[:last, c]) for c in range(3)] for last in range(5, 13)])
    found = {"update_predictions": predictions, "update_labels": labels, "update_iou": iou, "update_drops": drops}
    flat = [[int(c) for c in np.flatnonzero(row > 0.9)] for row in drops]
    first = [next((5 + step for step, classes in enumerate(flat) if c in classes), 0) for c in range(3)]
    return found | {"update_first": first}


def targets():
    rng = np.random.default_rng(44)
    batch = {
        "mask": rng.choice([0, 0, 1, 2, 255, 255], (2, 9, 10)).astype(np.uint8),
        "confidence": rng.integers(100, 256, (2, 9, 10)).astype(np.uint8),
        "tags": np.array([[1, 1, 0], [1, 1, 1]], np.uint8),
        "size": np.array([[8, 10], [9, 7]]),
    }
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    kernels = (0.5 * rng.normal(size=(2, 3, 3, 3, 3))).astype(np.float32)  # of the network and of its teacher
    found = {f"targets_{name}": value for name, value in batch.items()}
    found |= {"targets_images": x, "targets_kernels": kernels}
    for name, settings in CASES.items():
        config = NoiseConfig(**settings)
        kernel = kernels[1 if config.teacher else 0].astype(float)

        def network(image, kernel=kernel):
            return convolved(image, kernel, np.zeros(3), 2, 1)

        def asked(scales, network=network):
            images = zip(x.astype(float), batch["tags"], strict=True)
            return np.array([noise.probability_by_scale(network, *image, scales) for image in images])

        averaged = asked(config.update.scales if config.update else (1.0,))
        labels, weights = noise.targets_by_pixel(batch, config, (0, 2), averaged, asked((1.0,)))
        found |= {f"targets_labels_{name}": labels.astype(np.uint8), f"targets_weights_{name}": weights}
    return found
