"""Batch norms folded into convolutions: the same scores, and the network itself where they are not."""

import pytest
import torch
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.models import folding
from wsss_cli.models.build import build_segmentor
from wsss_cli.models.folding import folded

# the auxiliary head is not on the way to the scores
CASES = {
    "deeplabv3plus": (
        "test_efficientnet",
        ["head.aspp_channels=8", "head.low_channels=4", "head.dilations=[1,2]"],
    ),
    "fcn": ("test_resnet", ['head={kind="fcn"}']),
}


def network(name):
    """One that has seen other means and variances than 0 and 1."""
    backbone, head = CASES[name]
    settings = [f"backbone.name={backbone}", "backbone.weights=none", "backbone.output_stride=32", *head]
    config = load_preset("toy", [f"train.{setting}" for setting in settings]).train
    torch.manual_seed(0)
    model = build_segmentor(config, 5, torch.device("cpu"), weights=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_scores_are_the_same_and_the_network_is_left_as_it_was(name):
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = folded(model)
    assert twin is not model and [left for left in norms(twin) if not left.startswith("aux")] == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    x = model.backbone.normalise(torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(1)) * 255)
    scores = model(x)
    bound = 1e-5 * max(float(scores.abs().max()), 1.0)
    torch.testing.assert_close(twin(x), scores, rtol=0, atol=bound)
    assert not torch.equal(twin(x), torch.zeros_like(scores))


def test_where_scores_differ_the_network_itself_is_taken(monkeypatch):
    model = network("fcn")
    rest = folding._rest
    monkeypatch.setattr(folding, "_rest", lambda norm: nn.Sequential(rest(norm), nn.ReLU()))
    assert folded(model) is model


@torch.no_grad()
def test_a_convolution_that_is_used_twice_keeps_its_batch_norms():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.second(self.conv(self.first(self.conv(x))))

    assert folding._pairs(Shared().eval(), torch.zeros(1, 3, 4, 4)) == []
