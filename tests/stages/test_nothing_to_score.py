"""An evaluation whose photographs are gone: what was scored before is not lost."""

import shutil

import pytest
from test_eval_shards import data, score  # noqa: F401

from wsss_cli.errors import DataError
from wsss_cli.files import read_json


@pytest.mark.parametrize("shard", [None, (1, 1)])
def test_scores_stay_where_no_photograph_can_be_read(data, score, tmp_path, shard):  # noqa: F811
    before = score()
    photographs = data / "JPEGImages"
    shutil.move(photographs, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"none of the images of split 'val' of .* could be scored, first: cannot read"):
        score(shard, ms_flip=shard is None)
    assert read_json(tmp_path / "run/eval.json")["single"] == before["single"]
    shutil.move(tmp_path / "elsewhere", photographs)
    assert score(shard, ms_flip=shard is None)["single"] == before["single"]
