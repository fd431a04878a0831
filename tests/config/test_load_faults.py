import pytest

from wsss_cli.cli.stage import resolve
from wsss_cli.config.base import AdamWConfig, SgdConfig
from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.config.schema import Preset
from wsss_cli.errors import UsageError


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.toml"
    path.write_text('[dataset]\npath = "x"\n')
    return str(path)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_kind_keeps_the_keys_set_with_it_in_either_order(turn):
    preset = load_preset("toy", ["train.optim.kind=sgd", "train.optim.momentum=0.25", "train.optim.lr=0.5"][::turn])
    assert preset.train.optim == SgdConfig(lr=0.5, momentum=0.25)


def test_setting_one_key_of_a_section_keeps_its_other_defaults(minimal):
    assert load_preset(minimal).classifier.optim == AdamWConfig(lr=2e-4, head_lr_mult=10.0)
    preset = load_preset(minimal, ["classifier.optim.weight_decay=0.5"])
    assert preset.classifier.optim == AdamWConfig(lr=2e-4, head_lr_mult=10.0, weight_decay=0.5)


def test_each_bad_value_has_a_line_with_its_key():
    bad = ['pseudo.steps=[{kind="crf", crf={gauss_sxy=-1}}]', "train.optim.lr=high", "cam.scales=[1.0, 0]"]
    with pytest.raises(UsageError) as caught:
        load_preset("toy", bad)
    assert [line.split()[2] for line in caught.value.message.splitlines()] == [
        *("cam.scales.1", "pseudo.steps.0.crf.gauss_sxy", "train.optim.lr")
    ]
    assert all("from --set" in line for line in caught.value.message.splitlines())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=" + "9" * 5000, "it should be an integer"),
        ("train.optim.lr=.001", "it should be a number, as TOML writes it: 0.001, 1.0 or 1e-4, without quotes"),
        ("train.iters=1e3", "it should be an integer, as TOML writes it: 1000, without quotes, point and exponent"),
        ("train.compile=False", "it should be a boolean, true or false"),
        ("cam.scales=" + "[" * 5000, "nested too deeply"),
        ("cam.scales=" + "[" * 250 + "]" * 250, "preset toy"),
        ("dataset.path=/d/\udcff", "not UTF-8"),
    ],
)
def test_a_value_without_end_or_encoding_is_refused_in_a_short_line(override, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_preset("toy", [override])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("data", ["data/\U0001f600", "d\x7f", 'quo"te\\u', "dé"])
def test_a_data_set_is_looked_for_where_data_says_whatever_its_name(data):
    assert resolve("toy", None, data, train__init=data).dataset.path == data


def test_a_data_set_whose_name_is_no_text_is_refused_by_that_name():
    with pytest.raises(UsageError, match=r"the value is not UTF-8: .*d.udce4ten"):
        resolve("toy", None, "d\udce4ten")


def test_a_file_with_a_number_without_end_is_refused(tmp_path):
    (tmp_path / "endless.toml").write_text("seed = " + "9" * 5000)
    with pytest.raises(UsageError, match="not TOML"):
        load_preset(str(tmp_path / "endless.toml"))


def numbers_of(schema, place=""):
    """All parts of a JSON schema that are a number, by place."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield place, schema
        for key, value in schema.items():
            yield from numbers_of(value, f"{place}.{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from numbers_of(value, f"{place}.{number}")


def top(schema):
    if "enum" in schema:
        return 0
    return schema.get("maximum", schema.get("exclusiveMaximum", float("inf")))


def test_every_number_has_limits():
    numbers = dict(numbers_of(Preset.model_json_schema()))
    assert len(numbers) > 100
    no_work = ".$defs.ReferenceConfig."  # published figures
    assert [place for place, schema in numbers.items() if top(schema) > 2**62 and not place.startswith(no_work)] == []


@pytest.mark.parametrize("key", ["train.batch", "classifier.crop", "train.data_workers", "rounds", "eval.window"])
@pytest.mark.parametrize("value", [10**12, 2**63])
def test_a_number_above_its_limit_is_refused_with_the_limit(key, value):
    with pytest.raises(UsageError, match=rf"{key} .given: {value}.*less than or equal to \d+"):
        load_preset("toy", [f"{key}={value}"])


@pytest.mark.parametrize("key", ["cam.scales", "classifier.resize_max", "train.augment.scale_max", "train.optim.lr"])
def test_a_fraction_above_its_limit_is_refused_with_the_limit(key):
    value = "[1e300]" if key == "cam.scales" else "1e300"
    with pytest.raises(UsageError, match=rf"{key}.* .given: 1e\+300.*less than or equal to \d+"):
        load_preset("toy", [f"{key}={value}"])


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "..", "a\\b", "x" * 101])
def test_a_name_that_would_leave_the_runs_folder_is_refused(name):
    with pytest.raises(UsageError, match="name"):
        load_preset("toy", [f"name='{name}'"])


def test_name_and_description_are_not_inherited(tmp_path):
    (tmp_path / "base.toml").write_text('name = "b"\ndescription = "the base"\nseed = 4\n[dataset]\npath = "x"\n')
    (tmp_path / "child.toml").write_text('extends = "base.toml"\n')
    child = load_preset(str(tmp_path / "child.toml"))
    assert (child.name, child.description, child.seed) == ("child", "", 4)


def test_the_right_key_in_the_wrong_table_names_the_right_one():
    with pytest.raises(UsageError, match="unknown key iters") as caught:
        load_preset("toy", ["iters=3"])
    assert caught.value.hint == (
        "did you mean classifier.iters (int, default 500) or train.iters (int, default 20000) or "
        "reference[].iters (int, required)?"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.optim.kind=adam",
            "--set: train.optim: there is no kind 'adam' (did you mean adamw? kinds: sgd, adamw)",
        ),
        ("train.iters.x=3", "--set: unknown key train.iters.x (train.iters is a value, not a table)"),
        ("train.supervision.x=3", "--set: unknown key train.supervision.x (train.supervision is a value, not a table)"),
        ("cam.scales=[{a=1}]", "--set: unknown key cam.scales.0.a (cam.scales.0 is a value, not a table)"),
        ("x={}", "--set: unknown key x (keys there: name, "),
        ("train.augment={y={}}", "--set: unknown key train.augment.y (keys there: train.augment.scale_min, "),
        (
            "reference=[{itrs=3}]",
            "--set: unknown key reference.0.itrs (did you mean reference.0.iters (int, required)?)",
        ),
    ],
)
def test_what_there_is_not_is_named_with_where_it_comes_from(override, message):
    with pytest.raises(UsageError) as caught:
        load_preset("toy", [override])
    assert str(caught.value).startswith(message)


def test_a_key_that_there_is_not_comes_before_values_and_from_its_own_file(tmp_path):
    (tmp_path / "base.toml").write_text('[dataset]\npath = "x"\n[train]\niters = 0\noptim = { lrr = 1.0 }\n')
    (tmp_path / "mine.toml").write_text('extends = "base"\n[train]\noptim = { momentum = 0.5 }\n')
    with pytest.raises(UsageError) as caught:
        load_preset(str(tmp_path / "mine.toml"), ["train.batch=0"])
    assert str(caught.value).startswith("preset base: unknown key train.optim.lrr (did you mean train.optim.lr (float")


def test_a_key_of_another_kind_is_told_whose_it_is():
    with pytest.raises(UsageError) as error:
        load_preset("toy", ["train.optim.momentum=0.5"])  # toy trains with AdamW
    assert error.value.hint == "train.optim.momentum belongs to kind 'sgd'; train.optim.kind is another"


@pytest.mark.parametrize("key", ["cam.scales", "eval.scales", "train.head.dilations"])
def test_a_list_that_must_not_be_empty_is_named(key):
    with pytest.raises(UsageError, match=rf"{key} \(given: \[\]\)"):
        load_preset("toy", [f"{key}=[]"])


def test_a_smallest_ratio_above_the_largest_is_refused():
    with pytest.raises(UsageError, match="scale_min 9 is above scale_max 2"):
        load_preset("toy", ["train.augment.scale_min=9", "train.augment.scale_max=2.0"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.iters=9", "train.schedule.warmup_iters=10"], "train: schedule.warmup_iters 10 is above iters 9"),
        (["classifier.schedule.warmup_iters=121"], "classifier: schedule.warmup_iters 121 is above iters 120"),
        (["affinity.irn.iters=5", "affinity.irn.schedule.warmup_iters=6"], "affinity.irn: schedule.warmup_iters 6 is"),
        (["affinity.psa.iters=5", "affinity.psa.schedule.warmup_iters=6"], "affinity.psa: schedule.warmup_iters 6 is"),
        (
            ["cam.method.kind=recam", "cam.method.iters=5", "classifier.schedule.warmup_iters=6"],
            "cam.method.iters 5 is below classifier.schedule.warmup_iters 6",
        ),
        (["classifier.resize_min=2.0"], "classifier: resize_min 2 is above resize_max 1.5"),
        (["affinity.irn.resize_max=0.4"], "affinity.irn: resize_min 0.5 is above resize_max 0.4"),
        (["affinity.psa.resize_max=1.0"], "affinity.psa: resize_min 1.1 is above resize_max 1"),
        (["train.batch=4", "train.accumulate=4"], "train: batch is 4 in 4 parts, and batch norm of the pooled branch"),
        (["train.batch=1"], "train: batch is 1, and batch norm of the pooled branch of deeplabv3plus needs at least 2"),
        (
            ['train.loss=[{kind="cross-entropy"}, {kind="gated-crf", stride=80}]'],
            r"gated-crf compares pixels 80 apart \(its stride\), and crop is 128",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load_preset("toy", settings)


def test_settings_at_their_bounds_are_taken():
    load_preset("toy", ["train.iters=10", "train.schedule.warmup_iters=10", "classifier.resize_min=1.5"])
    load_preset("toy", ["train.batch=1", "train.head.kind=fcn"])


def test_a_run_that_an_earlier_version_made_with_such_settings_is_still_read(tmp_path):
    lock = tmp_path / "preset.lock.toml"
    fine = to_toml(load_preset("toy", ["train.schedule.warmup_iters=10"]))
    lock.write_text(
        fine.replace("warmup_iters = 10", "warmup_iters = 1000").replace("resize_min = 1.0", "resize_min = 9.0")
    )
    preset = load_preset(str(lock))
    assert (preset.train.schedule.warmup_iters, preset.classifier.resize_min) == (1000, 9.0)
    with pytest.raises(UsageError, match=r"schedule\.warmup_iters 1000 is above iters 5"):
        load_preset(str(lock), ["train.iters=5"])
    lock.rename(tmp_path / "mine.toml")
    with pytest.raises(UsageError, match=r"schedule\.warmup_iters 1000 is above iters 280"):
        load_preset(str(tmp_path / "mine.toml"))


def test_a_list_is_not_called_too_short_where_its_items_cannot_be_taken():
    with pytest.raises(UsageError, match="class_weights are all 0") as caught:
        load_preset("toy", ['train.loss=[{kind="cross-entropy", class_weights=[0, 0]}]'])
    assert "at least 1 item" not in str(caught.value)


def test_set_cannot_say_what_a_preset_extends():
    with pytest.raises(UsageError, match="--set extends: only the file of a preset"):
        load_preset("toy", ["extends=folder-lite0"])


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('extends = "toy"\n"train.iters" = 5', 'unknown key "train.iters"', "without quotes: train.iters = ..."),
        ('extends = "toy"\n[train]\nloss = "dice"', 'train.loss = \\[{kind = "dice"}\\]', "wsss presets show toy"),
        ('extends = "toy"\n[train]\nloss = []', "list should have at least 1 item", "wsss presets show toy"),
        ('extends = "toy"\nseed = -1', "greater than or equal to 0", "wsss presets show toy --describe"),
        ("seed = 1", "dataset: it is missing", "wsss presets show toy --describe"),
        ('extends = ["toy"]', "extends is the name or the file of one preset", 'extends = "toy"'),
        ("extends = 3", "extends is the name or the file of one preset", 'extends = "toy"'),
    ],
)
def test_what_is_said_of_a_file_leads_on(tmp_path, text, said, hint):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load_preset(str(file))
    assert hint in caught.value.hint and "mine" not in caught.value.hint  # a file that is at fault cannot be shown


def test_a_file_of_another_encoding_is_to_be_saved_as_utf_8(tmp_path):
    (tmp_path / "mine.toml").write_bytes('extends = "toy" # \u00e9'.encode("latin-1"))
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        load_preset(str(tmp_path / "mine.toml"))
    assert "save it as UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"), [(None, "is missing"), ("", "is empty"), ("[dataset", "is not TOML"), ("\n \n", "is empty")]
)
def test_settings_of_a_run_that_are_gone_or_cut_are_told_as_such(tmp_path, text, said):
    file = tmp_path / "preset.lock.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load_preset(str(file))
    assert caught.value.hint.startswith("copy the whole run again") and "--init RUN" in caught.value.hint
