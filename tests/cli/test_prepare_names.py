"""Names on the command line of `wsss prepare`: of classes, and of tags that are renamed."""

import pytest

from wsss_cli.cli.import_scores import label_renames
from wsss_cli.cli.prepare import _class_names, _renames
from wsss_cli.errors import UsageError


def test_classes_keep_their_order():
    assert _class_names(" dog, cat,a b ") == ("dog", "cat", "a b")
    assert _class_names("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat,cat,dog", "names 'cat' twice"),
        ("cat,Cat", "names 'Cat' twice"),
        ("cat,,dog", "a name is empty"),
        ("cat,dog,", "a name is empty"),
        ("background,cat", "the background is class 0 by itself"),
        ("cat,Background", "the background is class 0 by itself"),
    ],
)
def test_classes_that_would_shift_the_values_of_masks_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        _class_names(text)


@pytest.mark.parametrize("renames", [_renames, label_renames])
def test_a_tag_has_one_new_name(renames):
    assert renames(["a=b", "c=b", "a=b"]) == {"a": "b", "c": "b"}
    with pytest.raises(UsageError, match="--rename a=c: 'a' is renamed twice"):
        renames(["a=b", "a=c"])
