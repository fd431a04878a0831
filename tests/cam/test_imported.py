"""A teacher's instances as maps of the tagged classes."""

import json

import numpy as np
import pytest
from PIL import Image

from wsss_cli.cam.imported import ImportJob, import_scores
from wsss_cli.cam.store import read_cam
from wsss_cli.data.sources.results import Instance

LARGE, SMALL = [1, 1, 17, 1, 17, 11, 1, 11], [4, 4, 8, 4, 8, 8, 4, 8]


def maps(folder, instances, labels=(1, 2)):
    """The maps of instances (class, score, outline) on a photograph of 20x12 pixels."""
    texts = [json.dumps({"segmentation": [outline]}) for _, _, outline in instances]
    (folder / "results.json").write_text("[" + ",".join(texts) + "]")
    ends = np.cumsum([1, *(len(text) + 1 for text in texts)]).tolist()
    listed = [
        Instance(label, score, start, start + len(text))
        for (label, score, _), start, text in zip(instances, ends, texts, strict=False)
    ]
    Image.new("RGB", (20, 12)).save(folder / "a.png")
    out = folder / "a.npz"
    import_scores(ImportJob("a", folder / "a.png", labels, "results", folder / "results.json", tuple(listed), out, 4))
    return read_cam(out)[0]


@pytest.mark.parametrize(("large", "small"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("turn", [1, -1])
def test_of_equal_scores_the_smaller_instance_is_in_front(tmp_path, large, small, turn):
    cam = maps(tmp_path, [(large, 1.0, LARGE), (small, 1.0, SMALL), (small, 0.2, LARGE)][::turn])
    assert cam[small - 1][4:8, 4:8].min() == 1 and cam[large - 1][4:8, 4:8].max() == 0
    assert (cam[large - 1] == 1).sum() == 16 * 10 - 4 * 4


def test_other_scores_and_other_classes_hide_nothing(tmp_path):
    cam = maps(tmp_path, [(1, 0.8, LARGE), (2, 0.4, SMALL), (3, 0.8, SMALL)])
    assert (cam[0] > 0.7).sum() == 16 * 10 and (cam[1] > 0.3).sum() == 4 * 4
    twins = maps(tmp_path, [(1, 1.0, SMALL), (2, 1.0, SMALL)])
    assert (twins == 1).sum(axis=(1, 2)).tolist() == [16, 16]
