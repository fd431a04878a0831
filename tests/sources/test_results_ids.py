"""A JSON of results in which an id means two things."""

import json

import pytest

from wsss_cli.data.sources.results import read_results
from wsss_cli.errors import DataError


@pytest.mark.parametrize(("key", "field"), [("images", "file_name"), ("categories", "name")])
def test_an_id_of_two_names_is_refused(tmp_path, key, field):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({key: [{"id": 3, field: "one"}, {"id": 3, field: "two"}], "annotations": []}))
    with pytest.raises(DataError, match=f"{key} of id 3 are 'one' and 'two'"):
        read_results(file, [], None, {})
