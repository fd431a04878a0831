"""Tables of a preset that may be left out."""

import pytest

from wsss_cli.config.affinity import IrnConfig, PsaConfig
from wsss_cli.config.base import AdamWConfig, SgdConfig
from wsss_cli.config.load import load_preset, origins
from wsss_cli.config.lock import identity, to_toml
from wsss_cli.errors import UsageError


def test_what_is_left_out_is_not_there():
    affinity = load_preset("toy").affinity
    assert (affinity.irn, affinity.psa) == (None, None)


def test_a_key_begins_the_table_with_its_defaults():
    preset = load_preset("toy", ["affinity.irn.iters=300", "affinity.psa={}"])
    assert preset.affinity.irn == IrnConfig(iters=300)
    assert preset.affinity.psa == PsaConfig()
    came = origins("toy", ["affinity.irn.iters=300"])
    assert (came["affinity.irn.iters"], came["affinity.irn.batch"]) == ("--set", "default")


def test_part_of_a_variant_keeps_its_kind_and_another_kind_has_its_own_keys():
    part = load_preset("toy", ["affinity.irn.optim.momentum=0.9"]).affinity.irn
    assert part.optim == SgdConfig(lr=0.1, momentum=0.9, weight_decay=1e-4)
    other = load_preset("toy", ["affinity.irn.optim.kind=adamw"]).affinity.irn
    assert other.optim == AdamWConfig()


def test_a_file_may_begin_it_and_another_change_it(tmp_path):
    (tmp_path / "base.toml").write_text('[dataset]\npath = "x"\n[affinity.irn]\niters = 5\nbatch = 3\n')
    (tmp_path / "mine.toml").write_text('extends = "base"\n[affinity.irn]\niters = 7\n')
    irn = load_preset(str(tmp_path / "mine.toml"), ["affinity.irn.crop=64"]).affinity.irn
    assert irn == IrnConfig(iters=7, batch=3, crop=64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("affinity.irn.itres=3", "unknown key affinity.irn.itres (did you mean affinity.irn.iters (int, default 992)?"),
        ("affinity.ir.iters=3", "unknown key affinity.ir (did you mean affinity.irn (table, left out)?"),
        ("affinity.irn.optim.alpha=3", "unknown key affinity.irn.optim.alpha"),
        ("affinity.irn=3", "affinity.irn (given: 3) from --set"),
        ("affinity.irn.crf.iterations=0", "affinity.irn.crf.iterations (given: 0) from --set"),
        ("affinity.irn.threshold.fg=0.01", "affinity.irn.threshold: fg 0.01 is below bg 0.05"),
        ("affinity.psa.alpha_low=40", "affinity.psa: alpha_high 32.0 is below alpha_low 40.0"),
    ],
)
def test_what_is_wrong_in_it_is_named(override, message):
    with pytest.raises(UsageError) as caught:
        load_preset("toy", [override])
    assert message in str(caught.value)


def test_a_lock_file_keeps_what_is_there_and_what_is_not(tmp_path):
    preset = load_preset("toy", ["affinity.psa.iters=9"])
    (tmp_path / "preset.lock.toml").write_text(to_toml(preset))
    assert load_preset(str(tmp_path / "preset.lock.toml")) == preset


def test_an_identity_knows_its_own_network_only():
    def own(kind, *overrides):
        return identity(load_preset("toy", ["affinity.irn={}", "affinity.psa={}", *overrides]), kind, "data", "cam")

    assert own("irn") != own("psa")
    assert own("irn") != own("irn", "affinity.irn.radius=4")
    assert own("irn") != own("irn", "seed=1")
    for override in (
        "affinity.psa.iters=3",
        "affinity.irn.label_workers=3",
        "affinity.irn.kernels=fused",
        "classifier.iters=9",
        "pseudo.threshold.fg_offset=0.4",
    ):
        assert own("irn") == own("irn", override)
    for stage in ("cam", "pseudo", "train"):
        assert own(stage) == own(stage, "affinity.irn.iters=3")
