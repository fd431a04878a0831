"""Write methods.npz: inputs, and what the plain references of the tests make of them in float64.

    python tests/golden/make_methods.py

The references are loops and dense matrices; their results are kept here, so that a change of a reference shows, too.
"""

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
for room in ("crf", "noise", "pseudo"):
    sys.path.insert(0, str(HERE.parent / room))

import test_affinity_loss  # noqa: E402
import test_dense  # noqa: E402
import test_gated_crf  # noqa: E402
import test_par  # noqa: E402
import test_walk  # noqa: E402

from wsss_cli.pseudo.pairs import boundary_affinities, half_disc, path  # noqa: E402


def made():
    image, unary, _ = test_dense.scene(4, seed=11)
    found = {"crf_image": image, "crf_unary": unary}
    found["crf_posterior"] = test_dense.all_pairs(image, unary, **test_dense.SETTINGS)

    picture, planes = test_par.scene(12)
    found |= {"par_image": picture, "par_planes": planes}
    found["par_refined"] = test_par.by_loops(picture, planes, (1, 2), 4, 0.3, 0.01)

    rng = np.random.default_rng(13)
    cam, edge = rng.random((2, 10, 12)).astype(np.float32), rng.random((10, 12)).astype(np.float32) ** 3
    offsets = half_disc(5)
    affinities = boundary_affinities(torch.from_numpy(edge), offsets) ** 10
    transition = np.linalg.matrix_power(test_walk.dense_transition(affinities, offsets), 256)
    walked = ((cam.astype(float) * (1 - edge)).reshape(2, -1) @ transition).reshape(cam.shape)
    found |= {"irn_cam": cam, "irn_edge": edge, "irn_walked": walked / walked.max()}

    p, colours, gate = (tensor[0].numpy() for tensor in test_gated_crf.draw(seed=14))
    found |= {"gated_p": p, "gated_image": colours, "gated_gate": gate}
    found["gated_energy"] = test_gated_crf.reference(p, colours, gate, 3, 2.5, 30.0)

    logits = torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(15), dtype=torch.float64)
    labels, _ = test_affinity_loss.random_labels(16, (1, 6, 7))
    boundary = torch.sigmoid(logits)

    def affinity(b, y, x, dy, dx):
        return 1 - torch.stack([boundary[b, y + py, x + px] for py, px in path((dy, dx))]).max()

    found |= {"boundary_logits": logits.numpy(), "boundary_labels": labels.astype(np.uint8)}
    found["boundary_loss"] = test_affinity_loss.loop_loss(affinity, labels, 4).item()
    return found


if __name__ == "__main__":
    np.savez_compressed(HERE / "methods.npz", **made())
