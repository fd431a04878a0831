"""What methods.npz has of the ways to CAMs; see make_methods.py."""

import numpy as np
from references import consistency, gradcam, lpcam, recam
from references.loops import Draws, convolved, resized

from wsss_cli.config.cam import LpCamConfig

TAGS = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
SHAPES = [(2, 1), (1, 1)]  # stride and padding of the two convolutions


def sixteenths(rng, *shape):
    """Weights that float32 holds exactly, and that take little room."""
    return (np.rint(rng.normal(size=shape) * 8) / 16).astype(np.float32)


def network(rng):
    return {
        "net_kernel1": sixteenths(rng, 3, 3, 3, 3),
        "net_bias1": sixteenths(rng, 3),
        "net_kernel2": sixteenths(rng, 4, 3, 3, 3),
        "net_bias2": sixteenths(rng, 4),
        "net_classes": sixteenths(rng, 3, 4),
    }


def stages(net, image):
    """Both feature maps of an image."""
    first = np.maximum(convolved(image, net["net_kernel1"], net["net_bias1"], *SHAPES[0]), 0)
    return first, np.maximum(convolved(first, net["net_kernel2"], net["net_bias2"], *SHAPES[1]), 0)


def made():
    rng = np.random.default_rng(31)
    net, x = network(rng), rng.normal(size=(2, 3, 14, 10)).astype(np.float32)
    given = {name: value.astype(float) for name, value in net.items()}
    features = np.array([stages(given, image)[1] for image in x])
    found = {**net, "net_images": x, "net_tags": TAGS}

    kernels, biases = ([given[f"net_{part}{layer}"] for layer in (1, 2)] for part in ("kernel", "bias"))
    for layer in ("first", "second", "last"):
        maps = [gradcam.by_chain_rule(image, kernels, biases, SHAPES, given["net_classes"], layer) for image in x]
        found[f"gradcam_{layer}"] = np.array(maps) * TAGS[:, :, None, None]

    second = sixteenths(rng, 3, 4)
    found |= {"recam_second": second}
    found["recam_vectors"] = recam.pooled(features, np.einsum("cd,bdhw->bchw", given["net_classes"], features))
    found["recam_loss"] = recam.loss_by_loops(features, TAGS, given["net_classes"], second.astype(float))
    found["recam_cam"] = np.maximum(np.einsum("cd,bdhw->bchw", given["net_classes"] * second, features), 0)
    return found | prototypes_and_maps(rng, given["net_classes"], features) | seam_and_puzzle(rng, given, x)


def prototypes_and_maps(rng, weight, features):
    config = LpCamConfig(clusters=4, tau=0.3, class_score=0.5, context_score=0.3)
    draws, prototypes = rng.random((3, 8)), {}
    found = {"lpcam_draws": draws}
    for index in (0, 2):
        activations = np.maximum(np.einsum("d,bdhw->bhw", weight[index], features), 0)
        prototypes[index] = lpcam.prototypes_by_loops(features, activations, weight, index, config, Draws(draws[index]))
        found |= dict(zip((f"lpcam_own{index}", f"lpcam_context{index}"), prototypes[index], strict=True))
    found["lpcam_maps"] = np.array([lpcam.maps_by_loops(maps, prototypes, 3) for maps in features])
    return found


def seam_and_puzzle(rng, net, x):
    pcm = {"pcm_third": (64, 3), "pcm_fourth": (128, 4), "pcm_joint": (4, 195)}
    found = {name: sixteenths(rng, *shape) for name, shape in pcm.items()}
    layers = [value.astype(float) for value in found.values()]

    def view(images):
        maps = [stages(net, image) for image in images]
        cams = [np.einsum("cd,dhw->chw", net["net_classes"], last) for _, last in maps]
        pixels = [consistency.pixel_features(*pair, *layers) for pair in zip(images, maps, strict=True)]
        return list(zip(cams, pixels, strict=True))

    full, small = view(x.astype(float)), view(resized(x.astype(float), (10, 7), smooth=True))
    found["seam_losses"] = consistency.seam_by_loops(full, small, TAGS, 0.3)
    refined = [
        consistency.refined_by_loops(cam, consistency.affinity_by_loops(pixels), tags)[1:]
        for (cam, pixels), tags in zip(full, TAGS, strict=True)
    ]
    last = lambda image: stages(net, image)[1]  # noqa: E731
    losses = consistency.puzzle_by_loops(last, net["net_classes"], x.astype(float), TAGS)
    return found | {"seam_refined": np.array(refined), "puzzle_losses": losses}
