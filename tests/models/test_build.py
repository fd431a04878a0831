import pytest
import torch

from wsss_cli.config.base import BackboneConfig
from wsss_cli.config.classifier import ClassifierConfig
from wsss_cli.models.build import build_classifier

FIRST_TRAINED = {  # the first weights that learn, by levels frozen; level 1 is the map at stride 4
    "resnet18": ("conv1.weight", "layer2.0.conv1.weight", "layer3.0.conv1.weight"),
    "tf_efficientnet_lite0": ("conv_stem.weight", "blocks.2.0.conv_pw.weight", "blocks.3.0.conv_pw.weight"),
}


@pytest.mark.parametrize("name", FIRST_TRAINED)
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_all_up_to_the_level_that_is_named_stays_as_loaded(name, stages):
    config = BackboneConfig(name=name, weights="none", output_stride=32, frozen_stages=stages)
    model = build_classifier(ClassifierConfig(backbone=config), 3, torch.device("cpu"))
    trained = [key for key, weight in model.backbone.net.named_parameters() if weight.requires_grad]
    frozen = [key for key, weight in model.backbone.net.named_parameters() if not weight.requires_grad]
    assert trained[0].replace("blocks_", "blocks.") == FIRST_TRAINED[name][stages]
    assert len(frozen) + len(trained) == len(list(model.backbone.net.parameters()))
    assert bool(frozen) == (stages > 0)
