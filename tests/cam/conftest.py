import pytest
import torch
from torch import nn

from wsss_cli.models.backbones import Backbone


class Info:
    def channels(self):
        return [4, 5]

    def reduction(self):
        return [4, 8]


class Net(nn.Module):
    """Two convolutions; the second feature map is at stride 8."""

    def __init__(self):
        super().__init__()
        self.feature_info = Info()
        self.conv1 = nn.Conv2d(3, 4, 4, stride=4)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 5, 2, stride=2)

    def forward(self, x):
        first = self.act(self.conv1(x))
        return [first, torch.relu(self.conv2(first))]


@pytest.fixture
def tiny():
    """A backbone of two small maps with weights that are always the same."""
    torch.manual_seed(0)
    return Backbone(Net(), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
