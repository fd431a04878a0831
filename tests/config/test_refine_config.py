"""The steps of `[[pseudo.steps]]`: what is taken, what is refused, and what is said of a typo in a list of tables."""

import pytest

from wsss_cli.config.base import CrfConfig
from wsss_cli.config.load import load_preset, origins
from wsss_cli.config.refine import CrfStep, ParStep, check_order
from wsss_cli.errors import UsageError

FIXED = ["pseudo.threshold={ kind = 'fixed', fg = 0.4, bg = 0.2 }"]


def test_steps_are_set_as_a_list():
    steps = load_preset(
        "toy", ['pseudo.steps=[{kind="par", iterations=20}, {kind="crf", parameters="psa"}]']
    ).pseudo.steps
    assert steps == (ParStep(iterations=20), CrfStep(parameters="psa"))
    assert load_preset("toy", ["pseudo.steps=[]"]).pseudo.steps == ()


def test_a_table_of_steps_in_a_file_replaces_those_of_the_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "toy"\n[[pseudo.steps]]\nkind = "par"\n\n[[pseudo.steps]]\nkind = "crf"\non = "scores"\n'
    )
    preset = load_preset(str(path))
    assert preset.pseudo.steps == (ParStep(), CrfStep(on="scores"))
    assert preset.pseudo.threshold == load_preset("toy").pseudo.threshold
    assert origins(str(path))["pseudo.steps"] == "mine"


def test_own_values_need_no_word_for_it():
    (step,) = load_preset("toy", ['pseudo.steps=[{kind="crf", crf={bilateral_srgb=9.0}}]']).pseudo.steps
    assert (step.parameters, step.values) == ("own", CrfConfig(bilateral_srgb=9.0))


@pytest.mark.parametrize(
    ("steps", "message", "hint"),
    [
        ('{kind="crf", paramaters="irn"}', "unknown key pseudo.steps.0.paramaters", "did you mean pseudo.steps.0.para"),
        ('{kind="par"}, {kind="crf", w1=1}', "unknown key pseudo.steps.1.w1", "did you mean pseudo.steps[].w1 (float"),
        ('{kind="crf", crf={gaus_sxy=1}}', "pseudo.steps.0.crf.gaus_sxy", "did you mean pseudo.steps.0.crf.gauss_sxy"),
        (
            '{kind="cfr"}',
            "pseudo.steps.0: there is no kind 'cfr'",
            "did you mean crf? kinds: agree, irn-walk, psa-walk, crf, par",
        ),
        ('{on="labels"}', "pseudo.steps.0: kind is missing", "kinds: agree, irn-walk, psa-walk, crf, par"),
    ],
)
def test_a_typo_in_a_step_names_the_nearest(steps, message, hint):
    with pytest.raises(UsageError) as caught:
        load_preset("toy", [f"pseudo.steps=[{steps}]"])
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_step_is_not_set_by_a_key_and_the_old_place_of_a_key_names_the_new():
    with pytest.raises(UsageError, match=r"unknown key pseudo\.steps\.kind .*a list of tables, set as a whole"):
        load_preset("toy", ["pseudo.steps.kind=par"])
    with pytest.raises(UsageError, match=r"did you mean pseudo\.steps\[\]\.gt_prob"):
        load_preset("toy", ["pseudo.gt_prob=0.5"])
    with pytest.raises(UsageError, match=r"unknown key reference\.0\.itrs .*did you mean reference\.0\.iters"):
        load_preset("toy", ["reference=[{itrs=3}]"])


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (['pseudo.steps=[{kind="crf", parameters="irn", crf={}}]'], "has its own values"),
        (['pseudo.steps=[{kind="crf", parameters="own"}]'], "needs a table crf"),
        (['pseudo.steps=[{kind="crf", on="scores", gt_prob=0.5}]'], "there are none"),
        (['pseudo.steps=[{kind="crf", gt_prob=1.0}]'], "less than 1"),
        (['pseudo.steps=[{kind="par", dilations=[]}]'], "at least 1 item"),
        (['pseudo.steps=[{kind="par", scale=0}]'], "greater than 0"),
        (["pseudo.steps=[]", "pseudo.min_confidence=0.5"], "needs a posterior"),
        (['pseudo.steps=[{kind="par"}]', "pseudo.min_confidence=0.8"], "leaves no pixel"),
        (["pseudo.threshold.kind=fixed", "pseudo.threshold.bg=-0.1"], "greater than or equal to 0"),
        (["pseudo.threshold.bg_offset=-0.2"], "fg_offset -0.25 is below bg_offset -0.2"),
        (["pseudo.steps=3"], "a list of tables is needed"),
        (["pseudo.steps=[3]"], "pseudo.steps.0 .*: it should be a table, pseudo.steps.0.kind one of: agree, irn-walk"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(overrides, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        load_preset("toy", overrides)
    assert "pseudo" in caught.value.message


def test_what_has_a_meaning_is_taken():
    both = load_preset("toy", [*FIXED, 'pseudo.steps=[{kind="crf"}, {kind="par"}]', "pseudo.min_confidence=0.8"])
    assert (both.pseudo.steps, both.pseudo.min_confidence) == ((CrfStep(), ParStep()), 0.8)
    assert load_preset("toy", ['pseudo.steps=[{kind="par"}]', "pseudo.min_confidence=0.7"]).pseudo.steps == (ParStep(),)
    assert load_preset("toy", ["pseudo.threshold.kind=self", "pseudo.threshold.per_class=true"]).pseudo.per_class


@pytest.mark.parametrize(
    "kinds",
    [[], ["crf"], ["irn-walk"], ["irn-walk", "psa-walk", "crf"], ["psa-walk", "par", "crf"], ["crf", "crf", "par"]],
)
def test_walks_come_first(kinds):
    assert check_order(kinds) is None  # it is another order that raises, below


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        (["crf", "irn-walk"], "step irn-walk works on CAMs.*put it before crf"),
        (["par", "crf", "psa-walk"], "put it before par"),
        (["irn-walk", "irn-walk", "crf"], "two steps irn-walk on end"),
    ],
)
def test_another_order_is_refused(kinds, reason):
    with pytest.raises(ValueError, match=reason):
        check_order(kinds)


def test_a_walk_without_its_network_is_refused():
    with pytest.raises(UsageError, match=r"irn-walk, which needs the network of \[affinity\.irn\]"):
        load_preset("toy", ['pseudo.steps=[{kind="irn-walk"}, {kind="crf"}]'])
    with pytest.raises(UsageError, match=r"psa-walk, which needs the network of \[affinity\.psa\]"):
        load_preset("toy", ['pseudo.steps=[{kind="psa-walk"}]', "affinity.irn.iters=3"])
    preset = load_preset("toy", ['pseudo.steps=[{kind="irn-walk"}, {kind="crf"}]', "affinity.irn.iters=3"])
    assert [step.kind for step in preset.pseudo.walks] == ["irn-walk"]
    assert [step.kind for step in preset.pseudo.label_steps] == ["crf"]


def test_a_network_gives_no_cams_to_walk_on():
    with pytest.raises(UsageError, match=r"relabel\.steps"):
        load_preset("toy", ['relabel.steps=[{kind="irn-walk"}]'])
