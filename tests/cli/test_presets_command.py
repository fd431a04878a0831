import json
import re
import tomllib

import pytest

from wsss_cli.cli.stage import resolve
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.errors import UsageError


def test_list_names_every_preset(wsss):
    done = wsss("presets", "list")
    assert done.returncode == 0
    for name in preset_names():
        assert name in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_list_as_json(wsss):
    presets = json.loads(wsss("presets", "list", "--json").stdout)["presets"]
    assert [preset["name"] for preset in presets] == preset_names()
    assert next(p for p in presets if p["name"] == "deeplabv3p-r50-voc-weak")["supervision"] == "weak"


def test_show_prints_toml_that_loads_as_the_same_preset(wsss, tmp_path):
    done = wsss("presets", "show", "toy", "--set", "train.iters=7")
    assert done.returncode == 0
    (tmp_path / "mine.toml").write_text(done.stdout)
    assert load_preset(str(tmp_path / "mine.toml")) == load_preset("toy", ["train.iters=7"])


def test_show_with_origins_is_toml_too_and_names_them(wsss, tmp_path):
    done = wsss("presets", "show", "deeplabv3p-r50-voc-weak", "--origin", "--set", "seed=3")
    lines = {line.split(" ")[0]: line.rpartition("# ")[2] for line in done.stdout.splitlines()}
    assert lines["train.supervision"] == "deeplabv3p-r50-voc-weak"
    assert lines["train.optim.lr"] == "deeplabv3p-r50-voc-full"
    assert lines["seed"] == "--set"
    assert lines["train.augment.photometric"] == "default"
    expected = load_preset("deeplabv3p-r50-voc-weak", ["seed=3"]).model_dump(mode="json", exclude_none=True)
    assert set(expected["affinity"]) == {"irn"}  # the network that is not asked for is not shown
    assert tomllib.loads(done.stdout) == expected


def test_show_has_tables_in_lists_on_a_line_of_their_own(wsss, tmp_path):
    steps = 'pseudo.steps=[{kind="par"}, {kind="crf", crf={bilateral_srgb=9.0}}]'
    expected = load_preset("toy", [steps])
    for arguments in ((), ("--origin",)):
        (tmp_path / "mine.toml").write_text(wsss("presets", "show", "toy", "--set", steps, *arguments).stdout)
        assert load_preset(str(tmp_path / "mine.toml")) == expected


def test_an_unknown_key_exits_2_with_the_nearest(wsss):
    done = wsss("presets", "show", "toy", "--set", "train.itres=7")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean train.iters (int, default 20000)?" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_takes_all_presets(wsss):
    done = wsss("presets", "check")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{name}: ok" for name in preset_names()]


def test_check_exits_2_where_one_is_bad(wsss, tmp_path):
    (tmp_path / "bad.toml").write_text('extends = "toy"\n[train]\niters = -3\n')
    done = wsss("presets", "check", "toy", "bad.toml")
    assert done.returncode == 2
    good, bad = done.stdout.splitlines()
    assert good == "toy: ok"
    assert bad.startswith("bad.toml: ")
    assert "train.iters" in bad
    answer = wsss("presets", "check", "toy", "bad.toml", "--json")
    assert answer.returncode == 2
    shown = json.loads(answer.stdout)
    assert not shown["ok"]
    assert [entry["error"] is None for entry in shown["presets"]] == [True, False]


def test_schema_is_a_json_schema_with_descriptions(wsss):
    schema = json.loads(wsss("presets", "schema").stdout)
    train = schema["$defs"]["TrainConfig"]
    assert train["additionalProperties"] is False
    assert train["properties"]["iters"]["description"].startswith("training iterations")
    fields = [field for model in schema["$defs"].values() for name, field in model["properties"].items()]
    assert len(fields) > 60


@pytest.mark.parametrize(
    ("option", "override"),
    [({"train__iters": 3}, "train.iters=4"), ({"seed": 1}, "seed = 2"), ({"data": "b"}, 'dataset.path="c"')],
)
def test_an_option_and_set_do_not_give_a_setting_two_values(option, override):
    with pytest.raises(UsageError, match=f"--set {re.escape(override)}: another option of the command says"):
        resolve("toy", [override], **option)
    (key,) = option
    assert resolve("toy", [override], **{key: {"train__iters": 4, "seed": 2, "data": "c"}[key]})
