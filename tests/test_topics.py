"""Every topic that a user of a segmentation suite looks for has a page, or a section, and stands in the navigation."""

import re

import pytest
from pages import ROOT
from test_site import site as site  # the fixture

TOPICS = {
    "overview": "index.md",
    "install": "start/install.md",
    "a first run": "start/first-run.md",
    "my own 500 photographs, tags only, one evening, no GPU": "start/own-photographs.md#3. The evening",
    "FAQ": "start/questions.md",
    "FAQ: cannot reproduce": "start/questions.md#I do not get the published figure",
    "FAQ: CRF slow": "start/questions.md#The CRF is slow",
    "FAQ: COCO masks differ": "start/questions.md#My COCO masks differ from somebody's",
    "FAQ: own data": "start/questions.md#What must my own data look like?",
    "FAQ: out of memory": "start/questions.md#Out of memory",
    "configs": "how-to/presets.md",
    "data preparation": "how-to/prepare-data.md",
    "inference": "how-to/inference.md",
    "train and test": "how-to/train-and-score.md",
    "deployment": "how-to/deployment.md",
    "deployment: small devices": "how-to/deployment.md#Small devices",
    "deployment: TensorRT and OpenVINO": "how-to/deployment.md#TensorRT and OpenVINO",
    "deployment: serve": "how-to/deployment.md#A page, and masks over HTTP",
    "deployment: publish": "how-to/deployment.md#A folder to give away",
    "useful tools": "how-to/tools.md",
    "tools: log analysis": "how-to/tools.md#Log analysis",
    "tools: FLOPs": "how-to/tools.md#FLOPs and speed",
    "tools: confusion matrix": "how-to/tools.md#Confusion matrix",
    "feature maps": "how-to/look-at-results.md#Sheets of photographs",
    "visualisation": "how-to/look-at-results.md",
    "data sets": "how-to/prepare-data.md#Pascal VOC 2012 and SBD",
    "models": "explain/heads.md",
    "structures": "explain/structures.md",
    "transforms": "explain/transforms.md",
    "data flow": "explain/architecture.md#The flow",
    "engine": "explain/engine.md",
    "evaluation": "explain/evaluation.md",
    "adding a data set": "how-to/extend.md#A source of data sets",
    "adding a metric": "how-to/extend.md#A metric",
    "adding a module": "how-to/extend.md#A head",
    "adding a loss": "how-to/extend.md#A loss",
    "adding a transform": "how-to/extend.md#A transform",
    "customising the runtime": "how-to/extend.md#An optimiser",
    "training tricks": "how-to/training-tricks.md",
    "other devices": "how-to/devices.md",
    "migration": "how-to/from-mmsegmentation.md",
    "glossary": "explain/glossary.md",
}


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_has_its_page_and_heading(site, topic):
    module, folder = site
    page, _, heading = TOPICS[topic].partition("#")
    text = (folder / page).read_text(encoding="utf-8")
    assert not heading or heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert f"'{page}'" in str(module.navigation(folder))
    assert len(text.splitlines()) > 10 and (ROOT / "docs" / page).is_file()


def test_other_devices_say_what_is_tested_and_what_not():
    text = (ROOT / "docs/how-to/devices.md").read_text(encoding="utf-8")
    assert (
        re.search(r"MPS, XPU, NPU \| refused", text)
        and "CPU, x86-64 | where everything is developed and tested" in text
    )


def test_one_evening_is_told_with_times():
    text = (ROOT / "docs/start/own-photographs.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\d+ minutes", text)) >= 4
