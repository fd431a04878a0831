import math
import string

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.config import load
from wsss_cli.config.base import AdamWConfig, SgdConfig
from wsss_cli.config.load import load_preset, origins, preset_names
from wsss_cli.config.lock import to_toml
from wsss_cli.config.schema import Preset
from wsss_cli.errors import UsageError


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


BASE = """
[dataset]
path = "data/x"
[cam]
scales = [1.0, 0.5]
[train]
iters = 100
optim = { kind = "sgd", lr = 0.02, momentum = 0.5 }
"""


# -- shipped presets ---------------------------------------------------------------------------------------------------


def test_the_presets_of_the_program_are_there():
    assert set(preset_names()) >= {"toy", "voc-animals-lite0", "deeplabv3p-r50-voc-weak", "deeplabv3p-r50-voc-full"}


@pytest.mark.parametrize("name", preset_names())
def test_a_shipped_preset_is_valid_and_described(name):
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    assert preset.train.checkpoint_interval <= preset.train.iters


def test_weak_and_full_differ_in_supervision_and_in_how_masks_are_made_alone():
    weak, full = (load_preset(f"deeplabv3p-r50-voc-{kind}").model_dump() for kind in ("weak", "full"))
    assert (weak["train"].pop("supervision"), full["train"].pop("supervision")) == ("weak", "full")
    described = {"name", "description", "extends", "reference"}
    assert {key for key in weak if weak[key] != full[key]} == described | {"affinity", "pseudo"}


def test_the_full_preset_is_the_published_recipe():
    train = load_preset("deeplabv3p-r50-voc-full").train
    assert train.optim == SgdConfig(lr=0.01, head_lr_mult=1.0, momentum=0.9, weight_decay=5e-4)
    assert (train.iters, train.batch, train.crop, train.backbone.output_stride) == (20000, 16, 512, 8)
    assert (train.schedule.power, train.schedule.eta_min_ratio) == (0.9, 0.01)
    assert (train.head.aspp_channels, train.head.dilations) == (512, (1, 12, 24, 36))


def test_a_preset_of_ones_own_that_lacks_its_ending_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toyish.toml").write_text('extends = "toy"\n')
    with pytest.raises(UsageError, match="there is no preset 'toyish'") as caught:
        load_preset("toyish")
    assert caught.value.hint.startswith("did you mean toyish.toml?")


# -- extends -----------------------------------------------------------------------------------------------------------


def test_extends_merges_tables_and_replaces_lists(write):
    write("base", BASE)
    preset = load_preset(write("mine", 'extends = "base"\n[cam]\nscales = [2.0]\n[train]\nbatch = 3\n'))
    assert preset.name == "mine"
    assert preset.cam.scales == (2.0,)
    assert (preset.train.iters, preset.train.batch) == (100, 3)
    assert preset.train.optim == SgdConfig(lr=0.02, momentum=0.5)


def test_extends_takes_a_shipped_preset_too(write):
    preset = load_preset(write("mine", 'extends = "toy"\n[train]\niters = 7\n'))
    assert preset.train.iters == 7
    assert preset.cam == load_preset("toy").cam


def test_what_is_extended_may_extend_another(write):
    write("first", BASE)
    write("second", 'extends = "first"\ndescription = "of the second"\n[train]\niters = 8\n[cam]\nscales = [3.0]')
    path = write("third", 'extends = "second"\n[train]\niters = 9')
    preset, first = load_preset(path), load_preset(str(write("first", BASE)))
    assert (preset.train.iters, preset.cam.scales, preset.description) == (9, (3.0,), "")
    assert preset.train.optim == first.train.optim
    came = origins(path)
    assert (came["train.iters"], came["cam.scales"]) == ("third", "second")
    assert came["train.optim.lr"] == "first"


@pytest.mark.parametrize("second", ["first", "second"])
def test_presets_that_extend_each_other_in_a_circle_are_refused(write, second):
    path = write("first", 'extends = "second"')
    write("second", f'extends = "{second}"')
    with pytest.raises(UsageError, match=f"in a circle: .*second extends {second}"):
        load_preset(path)


def test_another_kind_drops_the_keys_of_the_old_one(write):
    write("base", BASE)
    path = write("mine", 'extends = "base"\n[train.optim]\nkind = "adamw"\nlr = 1e-4\n')
    assert load_preset(path).train.optim == AdamWConfig(lr=1e-4)  # momentum and the old rate are gone
    assert origins(path)["train.optim.weight_decay"] == "default"
    by_set = load_preset(str(write("base", BASE)), ["train.optim.kind=adamw"])
    assert by_set.train.optim == AdamWConfig()


def test_the_same_kind_keeps_the_keys(write):
    preset = load_preset(write("base", BASE), ["train.optim.kind=sgd", "train.optim.lr=0.3"])
    assert preset.train.optim == SgdConfig(lr=0.3, momentum=0.5)


# -- --set -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.optim.lr=1e-3", 0.001),
        ("train.iters = 5", 5),
        ("cam.scales=[1.0, 2]", (1.0, 2.0)),
        ("cam.flip=false", False),
        ("dataset.val=my_split", "my_split"),
        ('dataset.val="my split"', "my split"),
        ("dataset.path=/data/a=b", "/data/a=b"),
        ("classifier.weights=", ""),
        ("train.schedule.eta_min_ratio=1", 1.0),
    ],
)
def test_an_override_has_the_grammar_of_toml(override, expected):
    value = load_preset("toy", [override])
    for part in override.partition("=")[0].strip().split("."):
        value = getattr(value, part)
    assert value == expected
    assert type(value) is type(expected)


def test_a_later_override_wins():
    assert load_preset("toy", ["train.iters=5", "train.iters=6"]).train.iters == 6


def test_an_inline_table_is_merged():
    preset = load_preset("toy", ["train.optim={ lr = 0.5 }"])
    assert preset.train.optim == load_preset("toy").train.optim.model_copy(update={"lr": 0.5})


@pytest.mark.parametrize("bad", ["train.iters", "=3", "train..iters=3", ".=1", ""])
def test_an_override_without_key_or_value_is_refused(bad):
    with pytest.raises(UsageError, match="key=value"):
        load_preset("toy", [bad])


@pytest.mark.parametrize(
    "bad",
    [
        *("train.iters=0", "train.iters=2.5", "train.iters=many", "train.iters=true", "train.iters=1979-05-27"),
        *("train.optim.lr=nan", "train.optim.lr=inf", "train.optim.lr=-1", "train.optim.weight_decay=nan"),
        *("cam.flip=1", "cam.scales=2.0", "cam.scales=[1.0, 0]", "train.supervision=none", "train.optim.kind=adam"),
        *("pseudo.threshold.bg_offset=0.06", "seed=-1", "seed=9223372036854775808", "dataset=1", "train.optim=3"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(bad):
    with pytest.raises(UsageError) as caught:
        load_preset("toy", [bad])
    assert bad.split("=")[0].split(".")[0] in caught.value.message
    assert "\n" not in str(caught.value)


def test_two_values_in_one_override_are_refused():
    with pytest.raises(UsageError):
        load_preset("toy", ["train.iters=5\nbatch = 3"])


SCALARS = st.one_of(
    st.tuples(st.just("train.optim.lr"), st.floats(1e-12, 1e3)),
    st.tuples(st.just("train.iters"), st.integers(1, 10**9)),
    st.tuples(st.just("dataset.path"), st.text(st.characters(exclude_categories=["Cs"]))),
    st.tuples(st.just("cam.flip"), st.booleans()),
    st.tuples(st.just("cam.scales"), st.lists(st.floats(0.01, 8.0), min_size=1, max_size=5)),
)


@settings(max_examples=60, deadline=None)
@given(SCALARS)
def test_a_value_written_as_toml_arrives_unchanged(pair):
    key, value = pair
    text = tomli_w.dumps({"value": value}).removeprefix("value = ").strip("\n")
    preset = load_preset("toy", [f"{key}={text}"])
    found = preset
    for part in key.split("."):
        found = getattr(found, part)
    assert (list(found) if isinstance(value, list) else found) == value


@settings(max_examples=60, deadline=None)
@given(
    st.text(string.ascii_letters + "_-/.", min_size=1).filter(
        lambda s: s.strip() and s not in ("true", "false", "inf", "nan")
    )
)
def test_a_bare_word_is_a_string(word):
    assert load_preset("toy", [f"dataset.val={word}"]).dataset.val == word


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_override_is_taken_or_refused_with_a_sentence(key, value):
    try:
        preset = load_preset("toy", [f"{key}={value}"])
    except UsageError:
        return
    assert isinstance(preset, Preset)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(origins("toy"))), st.text(max_size=12))
def test_a_known_key_with_any_value_is_taken_or_refused(key, value):
    try:
        preset = load_preset("toy", [f"{key}={value}"])
    except UsageError:
        return
    again = Preset.model_validate_json(preset.model_dump_json())
    assert again == preset
    assert all(math.isfinite(v) for _, v in load.leaves(preset.model_dump()) if isinstance(v, float))


# -- unknown names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.itres=3", "did you mean train.iters (int, default 20000)?"),
        ("trian.iters=3", "did you mean train (table, a table)?"),
        ("train.optim.weightdecay=0.1", "did you mean train.optim.weight_decay (float, default 0.01)?"),
        ("train.optim.momentun=0.1", "keys there:"),  # the preset's optimiser is AdamW, which has none
        ("cam.scale=[1.0]", "did you mean cam.scales (list of float, default [1.0, 0.5, 1.5, 2.0])?"),
        ("train.supervison=full", "did you mean train.supervision (one of weak, mixed, partial, full, default"),
        ("train.iters.x=3", "train.iters is a value, not a table"),
        ("train_iters=3", "did you mean train.iters (int, default 20000)?"),
        ("train-optim-lr=3", "did you mean train.optim.lr (float"),
        ("train.Data-Workers=3", "did you mean train.data_workers (int, default -1)?"),
        ("train.crop-size=64", "did you mean train.crop (int, default"),
        ("train.batch_size=4", "did you mean train.batch (int, default"),
        ("train.num_iters=4", "did you mean train.iters (int, default"),
        ("train.data_worker=4", "did you mean train.data_workers (int, default"),
    ],
)
def test_an_unknown_key_names_the_nearest(override, hint):
    with pytest.raises(UsageError, match="unknown key") as caught:
        load_preset("toy", [override])
    assert caught.value.hint.startswith(hint)


def test_an_unknown_key_in_a_file_names_the_file(write):
    with pytest.raises(UsageError, match=r"preset mine: unknown key train\.bach") as caught:
        load_preset(write("mine", BASE.replace("iters = 100", "bach = 4")))
    assert "train.batch" in caught.value.hint


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UsageError, match="no preset 'deeplabv3p-r50-voc-week'") as caught:
        load_preset("deeplabv3p-r50-voc-week")
    assert "did you mean deeplabv3p-r50-voc-weak?" in caught.value.hint


@pytest.mark.parametrize("text", ["iters = ", "[dataset]\npath = 1\npath = 2", "\x00"])
def test_what_is_not_toml_is_refused(write, text):
    with pytest.raises(UsageError, match="not TOML"):
        load_preset(write("bad", text))


def test_a_file_that_is_missing_a_folder_or_not_utf8_is_refused(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    for name in ("nothing.toml", "folder.toml", "latin.toml"):
        with pytest.raises(UsageError, match=name):
            load_preset(str(tmp_path / name))


def test_a_preset_without_a_data_set_says_so(write):
    with pytest.raises(UsageError, match="dataset: it is missing"):
        load_preset(write("mine", "seed = 3"))


# -- origins -----------------------------------------------------------------------------------------------------------


def test_origins_names_the_file_of_each_value(write):
    write("base", BASE)
    found = origins(write("mine", 'extends = "base"\n[train]\nbatch = 3\n'), ["seed=9", "train.optim.lr=1"])
    assert found["train.batch"] == "mine"
    assert found["train.iters"] == found["train.optim.momentum"] == "base"
    assert found["seed"] == found["train.optim.lr"] == "--set"
    assert found["train.crop"] == "default"


def test_origins_knows_every_value_of_the_preset():
    assert list(origins("toy")) == [key for key, _ in load.leaves(load_preset("toy").model_dump(mode="json"))]


def test_an_installed_package_finds_its_own_presets(tmp_path, monkeypatch):
    package = tmp_path / "wsss_cli"
    (package / "presets").mkdir(parents=True)
    (package / "presets" / "only.toml").write_text(to_toml(load_preset("toy", ["train.iters=77"])))
    (tmp_path / "presets").mkdir()  # somebody else's
    monkeypatch.setattr(load, "__file__", str(package / "config" / "load.py"))
    assert preset_names() == ["only"]
    assert load_preset("only").train.iters == 77


# -- files as editors write them ---------------------------------------------------------------------------------------


def test_a_preset_with_a_byte_order_mark_and_lines_of_windows_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b'\xef\xbb\xbfextends = "toy"\r\n[train]\r\niters = 7\r\n')
    assert load_preset(str(path)).train.iters == 7


def test_a_file_that_is_there_but_is_no_preset_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("train:\n  iters: 7\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"mine\.yaml is no preset") as caught:
        load_preset("mine.yaml")
    assert ".toml" in caught.value.hint
