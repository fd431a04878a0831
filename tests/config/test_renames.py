"""Settings under their old names. The table is passed in, so that no test but the last hangs on today's entries."""

import json
from pathlib import Path

import pytest

from wsss_cli.config import faults, renames
from wsss_cli.config.base import SgdConfig
from wsss_cli.config.load import load_preset, origins
from wsss_cli.config.lock import to_toml
from wsss_cli.config.loss import CrossEntropyConfig, GatedCrfConfig
from wsss_cli.config.renames import RENAMES, Rewrite, renamed
from wsss_cli.config.schema import Preset
from wsss_cli.config.thresholds import CurveThreshold, FixedThreshold
from wsss_cli.errors import UsageError


def first_scale(value, below):
    return {"cam.scales": [value, *below["cam"]["scales"][1:]]}


def one_more_scale(value, below):
    return {"cam.scales": [*below["cam"]["scales"], value]}


def percent(value, below):
    return {"pseudo.min_confidence": value / 100} if value > 1 else None


def offset(value, below):
    return {"pseudo.threshold.bg_offset": value} if below["pseudo"]["threshold"]["kind"] == "self" else None


TABLE = {
    "net": "train",
    "net.rate": "train.optim.lr",
    "cam.base_scale": Rewrite(first_scale, 1.0),
    "cam.extra_scale": Rewrite(one_more_scale, 3.0),
    "pseudo.min_confidence": Rewrite(percent, 90),
    "pseudo.offset": Rewrite(offset, -0.4),
    "train.magic": Rewrite(lambda value, below: {}, 1),
}


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(renames, "RENAMES", TABLE)


def test_a_value_and_a_table_move():
    assert renamed({"net": {"iters": 3, "rate": 0.5}, "seed": 1}, {}, "here", TABLE) == (
        {"train": {"iters": 3, "optim": {"lr": 0.5}}, "seed": 1},
        "here: net.rate is now train.optim.lr, net is now train; taken as that",
    )
    assert renamed({"net": {"rate": 0.5}}, {}, "here", TABLE)[0] == {"train": {"optim": {"lr": 0.5}}}


def test_what_is_new_stays_and_is_not_spoken_of():
    layer = {"train": {"iters": 3}, "pseudo": {"min_confidence": 0.9}, "net": {}}
    assert renamed({"train": {"iters": 3}}, {}, "here", TABLE) == ({"train": {"iters": 3}}, "")
    assert renamed({"pseudo": {"min_confidence": 0.9}}, {}, "here", TABLE)[1] == ""
    renamed(layer, {}, "here", TABLE)
    assert layer == {"train": {"iters": 3}, "pseudo": {"min_confidence": 0.9}, "net": {}}


def test_functions_see_the_layers_below_and_each_other():
    below = {"cam": {"scales": [1.0, 0.5]}}
    layer = {"cam": {"base_scale": 2.0, "extra_scale": 4.0}}
    assert renamed(layer, below, "here", TABLE)[0] == {"cam": {"scales": [2.0, 0.5, 4.0]}}
    assert below == {"cam": {"scales": [1.0, 0.5]}}


def test_a_function_may_keep_the_key_or_drop_it():
    new, note = renamed({"pseudo": {"min_confidence": 90}, "train": {"magic": 1}}, {}, "here", TABLE)
    assert new == {"pseudo": {"min_confidence": 0.9}}
    assert note == (
        "here: pseudo.min_confidence has another form now, train.magic has no effect any more; taken as that"
    )


def test_old_and_new_together_are_refused_unless_they_are_parts_of_one_table():
    with pytest.raises(UsageError, match=r"here: net\.rate is now train\.optim\.lr, and both are given \(leave out n"):
        renamed({"net": {"rate": 1.0}, "train": {"optim": {"lr": 1.0}}}, {}, "here", TABLE)
    with pytest.raises(UsageError, match=r"net is now train, and both"):
        renamed({"net": {"iters": 3}, "train": {"iters": 3}}, {}, "here", TABLE)
    with pytest.raises(UsageError, match=r"cam\.base_scale is now cam\.scales, and both"):
        renamed({"cam": {"base_scale": 3, "scales": [1.0]}}, {"cam": {"scales": [1.0]}}, "here", TABLE)
    assert renamed({"net": {"iters": 3}, "train": {"batch": 2}}, {}, "here", TABLE)[0] == {
        "train": {"iters": 3, "batch": 2}
    }


def test_many_old_settings_are_one_line():
    many = {f"old.k{n}": f"new.k{n}" for n in range(9)}
    note = renamed({"old": {f"k{n}": n + 1 for n in range(9)}}, {}, "preset x", many)[1]
    assert note.startswith("preset x: old.k0 is now new.k0, old.k1 is now new.k1, ")
    assert note.endswith("old.k5 is now new.k5, and 3 more such; taken as that")


def test_presets_and_overrides_are_read_under_old_names(table, tmp_path):
    (tmp_path / "base.toml").write_text(
        '[dataset]\npath = "x"\n[net]\niters = 5\noptim = { kind = "sgd", momentum = 0.5 }\n'
    )
    (tmp_path / "mine.toml").write_text('extends = "base"\n[cam]\nbase_scale = 3.0\n')
    said = []
    arguments = str(tmp_path / "mine.toml"), ["net.batch=2", "net.rate=0.5", "seed=4"]
    preset = load_preset(*arguments, said.append)
    assert (preset.train.iters, preset.train.batch) == (5, 2)
    assert preset.train.optim == SgdConfig(lr=0.5, momentum=0.5)
    assert preset.cam.scales == (3.0, 0.5, 1.5, 2.0)
    assert said == [
        "preset base: net is now train; taken as that",
        "preset mine: cam.base_scale is now cam.scales; taken as that",
        "--set: net.rate is now train.optim.lr, net is now train; taken as that",
    ]
    came = origins(*arguments)
    assert (came["train.iters"], came["cam.scales"], came["train.batch"]) == ("base", "mine", "--set")


def test_an_override_merges_like_the_new_key_would(table):
    said = []
    assert load_preset("toy", ["net.iters=3"], said.append) == load_preset("toy", ["train.iters=3"])
    assert load_preset("toy", ["net.optim.kind=sgd"], said.append).train.optim == SgdConfig()
    threshold = ["pseudo.threshold.kind=self", "pseudo.offset=-0.5"]
    assert load_preset("toy", threshold, said.append).pseudo.threshold.bg_offset == -0.5
    with pytest.raises(UsageError, match=r"unknown key pseudo\.offset"):
        load_preset("toy", ["pseudo.offset=-0.5"])


def test_an_old_lock_file_is_read_and_the_line_goes_to_stderr(table, tmp_path, capsys):
    preset = load_preset("toy")
    lock = tmp_path / "preset.lock.toml"
    lock.write_text(to_toml(preset).replace("[train]", "[net]").replace("[train.", "[net."))
    assert load_preset(str(lock)) == preset
    assert capsys.readouterr() == ("", f"preset {lock}: net is now train; taken as that\n")


def test_a_bad_value_under_an_old_name_is_refused_under_the_new(table):
    with pytest.raises(UsageError, match=r"train\.iters \(given: 0\) from --set"):
        load_preset("toy", ["net.iters=0"])
    with pytest.raises(UsageError, match=r"--set: unknown key train\.itres .did you mean train\.iters"):
        load_preset("toy", ["net.itres=3"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # toy: train-curve, -0.25, -0.40
        (["pseudo.fg_threshold=0.1"], {"kind": "train-curve", "fg_offset": 0.1, "bg_offset": -0.4}),
        (
            ["pseudo.per_class=true", "pseudo.threshold=self"],
            {"kind": "self", "fg_offset": -0.25, "bg_offset": -0.4, "per_class": True},
        ),
        (
            ["pseudo.bg_threshold=0.2", "pseudo.fg_threshold=0.4", "pseudo.threshold=fixed", "pseudo.per_class=false"],
            {"kind": "fixed", "fg": 0.4, "bg": 0.2},
        ),
        (["pseudo.threshold.kind=fixed", "pseudo.fg_threshold=0.4"], {"kind": "fixed", "fg": 0.4}),
    ],
)
def test_thresholds_in_their_old_form(old, new):
    said = []
    threshold = load_preset("toy", old, said.append).pseudo.threshold
    assert (
        threshold
        == load_preset("toy", [f"pseudo.threshold.{k}={json.dumps(v)}" for k, v in new.items()]).pseudo.threshold
    )
    assert len(said) == 1


def test_irns_thresholds_in_their_old_form(tmp_path):
    (tmp_path / "base.toml").write_text('[dataset]\npath = "x"\n[affinity.irn]\nfg_threshold = 0.4\n')
    (tmp_path / "mine.toml").write_text('extends = "base"\n[affinity.irn]\nthreshold = "train-curve"\n')
    said = []
    assert load_preset(str(tmp_path / "base.toml"), (), said.append).affinity.irn.threshold == FixedThreshold(fg=0.4)
    irn = load_preset(str(tmp_path / "mine.toml"), (), said.append).affinity.irn
    assert irn.threshold == CurveThreshold(fg_offset=0.4, bg_offset=0.05)
    assert said[0] == "preset base: affinity.irn.fg_threshold is now affinity.irn.threshold.fg; taken as that"
    assert said[2] == "preset mine: affinity.irn.threshold has another form now; taken as that"
    with pytest.raises(UsageError, match=r"pseudo\.threshold\.fg \(given: -0\.25\)"):
        load_preset("toy", ["pseudo.threshold=fixed"], said.append)  # an offset is no score


KEYS = {key for key, _ in faults.all_keys(Preset)}


@pytest.mark.parametrize("old", RENAMES)
def test_an_entry_of_the_table_leads_to_a_setting_that_there_is(old):
    new = RENAMES[old]
    if isinstance(new, str):
        assert new in KEYS
        assert old not in KEYS
    else:
        said = []
        load_preset("toy", [f"{old}={json.dumps(new.example)}"], said.append)
        assert len(said) == 1
        assert said[0].startswith("--set: ")
        assert old in said[0]


def test_settings_of_the_loss_become_terms():
    def loss(*overrides):
        return load_preset("toy", overrides, lambda line: None).train.loss

    assert loss() == (CrossEntropyConfig(average="valid"),)
    assert loss("train.loss_average=all") == (CrossEntropyConfig(),)
    assert loss("train.noise.balance=fg-bg") == (CrossEntropyConfig(average="valid", balance="fg-bg"),)
    crf = loss("train.noise.gated_crf={}")
    assert crf == (CrossEntropyConfig(average="valid"), GatedCrfConfig(average="valid"))
    both = loss("train.loss_average=all", "train.noise.gated_crf.radius=3", "train.noise.balance=fg-bg")
    assert both == (CrossEntropyConfig(balance="fg-bg"), GatedCrfConfig(radius=3))
    assert loss("train.noise.gated_crf=false") == loss()


def test_settings_of_the_loss_change_the_terms_of_the_layer_below(tmp_path):
    (tmp_path / "old.toml").write_text(
        'extends = "toy"\n[train]\nloss_average = "all"\n[train.noise]\ngated_crf = { weight = 0.5 }\n'
    )
    said = []
    preset = load_preset(str(tmp_path / "old.toml"), ["train.noise.gated_crf.radius=2"], said.append)
    assert preset.train.loss == (CrossEntropyConfig(), GatedCrfConfig(weight=0.5, radius=2))
    assert said[1] == "--set: train.noise.gated_crf is now train.loss; taken as that"
    off = load_preset(str(tmp_path / "old.toml"), ["train.noise.gated_crf=false"], said.append)
    assert off.train.loss == (CrossEntropyConfig(),)


def test_a_lock_from_before_settings_were_moved_means_what_it_meant():
    said = []
    preset = load_preset(str(Path(__file__).with_name("preset.lock.0.toml")), say=said.append)
    assert len(said) == 1
    assert said[0].endswith("more such; taken as that")
    classifier = preset.classifier
    assert (classifier.iters, classifier.weights, classifier.backbone.name) == (
        123,
        "runs/cam-x",
        "tf_efficientnet_lite0",
    )
    assert preset.cam.method.kind == "recam"
    threshold = preset.pseudo.threshold
    assert (threshold.kind, threshold.fg_offset, threshold.bg_offset) == ("self", 0.0625, -0.125)
    assert threshold.per_class
    assert preset.affinity.irn.threshold == CurveThreshold(fg_offset=0.05, bg_offset=-0.2)
    assert (preset.train.head.low_channels, preset.train.aux.weight) == (40, 0.3)
    assert preset.train.loss == (
        CrossEntropyConfig(average="valid", balance="fg-bg"),
        GatedCrfConfig(average="valid", weight=0.2),
    )
