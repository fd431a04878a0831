"""The boundary branch and AffinityNet over small timm backbones."""

import pytest
import torch

from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.base import BackboneConfig
from wsss_cli.models.affinity import AffinityNet, BoundaryNet
from wsss_cli.models.build import build_affinity

CPU = torch.device("cpu")
SMALL = {"name": "resnet10t", "weights": "none"}


@pytest.fixture(scope="module")
def boundary():
    torch.manual_seed(0)
    return build_affinity(IrnConfig(backbone=BackboneConfig(**SMALL)), CPU)


def test_the_grid_of_boundaries_has_stride_4_rounded_up(boundary):
    assert isinstance(boundary, BoundaryNet)
    assert boundary(torch.randn(2, 3, 64, 96)).shape == (2, 16, 24)
    assert boundary(torch.randn(1, 3, 66, 50)).shape == (1, 17, 13)


def test_only_the_boundary_branch_learns(boundary):
    boundary.train()
    before = {key: value.clone() for key, value in boundary.backbone.state_dict().items()}
    boundary(torch.randn(2, 3, 64, 64)).square().sum().backward()
    learning = {name for name, p in boundary.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in learning} == {"levels", "fuse"}
    assert all(torch.equal(value, before[key]) for key, value in boundary.backbone.state_dict().items())
    boundary.eval()


def test_affinity_features_have_stride_8_and_the_backbone_learns_above_its_frozen_levels():
    config = PsaConfig(backbone=BackboneConfig(weights="none", frozen_stages=2))
    network = build_affinity(config, CPU)
    assert isinstance(network, AffinityNet)
    features = network(torch.randn(2, 3, 64, 48))
    assert features.shape == (2, 448, 8, 6)
    assert features.min() >= -1.0  # ELU
    features.sum().backward()
    assert any(p.grad is not None for p in network.backbone.parameters())
    assert any(not p.requires_grad for p in network.backbone.parameters())
