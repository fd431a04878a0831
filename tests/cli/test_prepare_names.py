"""Names on the command line of `wsss prepare`: of classes, and of tags that are renamed."""

import shlex

import pytest

from wsss_cli.cli.import_scores import label_renames
from wsss_cli.cli.prepare import _class_names, _renames
from wsss_cli.data.sources.listed import refuse_unknown
from wsss_cli.data.sources.tags import refuse_twins
from wsss_cli.errors import DataError, UsageError
from wsss_cli.talk import rename_option


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


@pytest.mark.parametrize("renames", [_renames, label_renames])
@pytest.mark.parametrize("name", ["cat", "l'x", "<cat>", "a b", "R&D", "-lead", "$x"])
def test_the_option_of_a_hint_renames_what_it_says(renames, name):
    option, pair = shlex.split(rename_option(name, "dog"))
    assert option == "--rename" and renames([pair]) == {name: "dog"}


def test_no_option_is_named_for_a_tag_that_none_can_name(tmp_path):
    assert "--rename" not in rename_option("", "dog") + rename_option("x=y", "dog")
    with pytest.raises(DataError) as caught:
        refuse_twins({"x=y": (2, 1), "X=Y": (3, 2)}, "t.csv")
    assert caught.value.hint == "one class? X=Y in the file in place of 'x=y'"
    with pytest.raises(DataError) as caught:  # of a sign that is shown as an escape, which a shell does not take
        refuse_twins({"cat": (2, 1), "cat\u200e": (3, 2)}, "t.csv")
    assert caught.value.hint == r"one class? cat in the file in place of 'cat\u200e'"
    with pytest.raises(DataError) as caught:
        refuse_unknown({"l'x": 2}, ("cat",), tmp_path)
    assert shlex.split(caught.value.hint.partition("; ")[2])[:2] == ["--rename", "l'x=NAME"]
