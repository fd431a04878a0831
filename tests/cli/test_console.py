import json
from pathlib import Path

import numpy as np

from wsss_cli.cli import console


def test_json_takes_paths_and_numpy_and_makes_null_of_what_is_not_finite(capsys):
    console.result_json({"path": Path("a/b"), 3: (np.int64(2), np.float32("nan"), float("inf")), "name": "\udcff"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "3": [2, None, None], "name": "\udcff"}
