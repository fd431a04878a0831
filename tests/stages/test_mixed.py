"""Mixed supervision: a data set's own labels in place of pseudo masks, in every stage and beside every figure."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.drawn import drawn
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.data.trusted import add_trusted, clear_trusted, read_trusted
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import Inputs, read_inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.network import load_network
from wsss_cli.stages.paths import cam_path, confidence_path, mask_path
from wsss_cli.stages.pipeline import run_step
from wsss_cli.stages.plan import open_experiment, plan_pseudo, plan_relabel, plan_train
from wsss_cli.stages.preflight import problems
from wsss_cli.stages.relabel import first_scores
from wsss_cli.stages.training_data import repeated, training_item
from wsss_cli.talk import silent


@pytest.fixture
def home(tmp_path):
    """A data set of six photographs, and a cam run of maps that say nothing of the truth."""
    prepare_toy(tmp_path / "toy", images=6, val=2, size=48)
    dataset = open_dataset(tmp_path / "toy")
    cam = tmp_path / "runs/cam-toy-1"
    inputs = Inputs(dataset=str(dataset.root), classes=dataset.classes, colors=dataset.colors, dataset_name="toy")
    with open_run(cam, "cam", load_preset("toy", [f'dataset.path="{dataset.root}"']), "1", inputs) as run:
        for sample in dataset.split("train"):
            maps = np.linspace(0, 1, len(sample.labels) * 48 * 48, dtype=np.float32).reshape(-1, 48, 48)
            write_cam(cam_path(cam, sample.id), maps, sample.labels, (48, 48))
        run.finish()
    return tmp_path


SMALL = ["train.crop=32", "train.batch=2", "train.iters=2", "train.val_interval=0", "train.aux.weight=0"]
MASKS = ["pseudo.steps=[]", "pseudo.threshold.kind=fixed", "pseudo.threshold.fg=0.6", "pseudo.threshold.bg=0.3"]


def experiment(home, *settings, masks=MASKS):
    preset = load_preset("toy", [f'dataset.path="{home / "toy"}"', *SMALL, *masks, *settings])
    return open_experiment(preset, home / "runs")


def context(home):
    return Context(torch.device("cpu"), home / "runs")


def give(home, kind, change, places):
    dataset = open_dataset(home / "toy")
    samples = dataset.split("train")
    chosen = [samples[place] for place in places]
    add_trusted(dataset, [(one, one.mask, change(read_mask(one.mask))) for one in chosen], kind, "by hand")
    return chosen


def pseudo_of(home, *settings, masks=MASKS):
    exp = experiment(home, *settings, masks=masks)
    *_, step = plan_pseudo(exp, home / "runs/cam-toy-1", silent)
    run_step(step, exp, context(home))
    return step.path


def test_masks_have_what_is_given_and_say_so(home):
    whole = give(home, "mask", lambda mask: mask, [0, 1])
    partial = give(home, "partial", lambda mask: drawn(mask, "scribbles", 0), [2])
    plain, mixed = pseudo_of(home), pseudo_of(home, "train.supervision=mixed")
    assert plain != mixed and not read_inputs(plain).trusted
    for sample in open_dataset(home / "toy").split("train"):
        before, after = (read_mask(mask_path(run, sample.id)) for run in (plain, mixed))
        truth, sure = read_mask(sample.mask), read_mask(confidence_path(mixed, sample.id))
        if sample in whole:
            assert (after == truth).all() and (sure == 255 * (truth != 255)).all()
        elif sample in partial:
            said = drawn(truth, "scribbles", 0) != 255
            assert said.any() and (after[said] == truth[said]).all() and (after[~said] == before[~said]).all()
            assert (sure[said] == 255).all()
        else:
            assert (after == before).all()
    words = "2 whole masks and 1 partial label maps of 6 photographs (by hand)"
    assert read_inputs(mixed).trusted_words == words
    protocol = json.loads((mixed / "eval.json").read_text())["protocol"]
    assert f"{words} stand in them and count in these figures" in protocol


def test_other_labels_are_another_run_and_masks_without_them_are_not_taken(home):
    give(home, "mask", lambda mask: mask, [0])
    first = pseudo_of(home, "train.supervision=mixed")
    assert pseudo_of(home, "train.supervision=mixed") == first
    give(home, "mask", lambda mask: mask, [1])
    assert pseudo_of(home, "train.supervision=mixed") != first
    exp = experiment(home, "train.supervision=mixed")
    with pytest.raises(UsageError, match="was made without the labels"):
        plan_train(exp, pseudo_of(home), silent)
    with pytest.raises(UsageError, match="was made with labels"):
        plan_train(experiment(home), first, silent)
    clear_trusted(home / "toy")
    assert not read_trusted(home / "toy").entries
    with pytest.raises(DataError, match="has no labels of its own"):
        pseudo_of(home, "train.supervision=mixed")


def test_the_threshold_is_the_one_that_fits_the_labels(home):
    """CAMs grow from left to right and down; labels say object from two thirds of the scores on."""
    offsets = {"kind": "trusted", "fg_offset": 0.05, "bg_offset": -0.1}
    steps = ["pseudo.steps=[]", *(f"pseudo.threshold.{key}={value}" for key, value in offsets.items())]
    dataset = open_dataset(home / "toy")
    given = []
    for sample in dataset.split("train")[:2]:
        maps, classes, _ = read_cam(cam_path(home / "runs/cam-toy-1", sample.id))
        label = np.where(maps[-1] > 2 / 3, classes[-1], 0).astype(np.uint8)
        label[:4] = 255
        given.append((sample, home / "toy", label))
    add_trusted(dataset, given, "partial", "by hand")
    run = pseudo_of(home, "train.supervision=mixed", masks=steps)
    thresholds = [json.loads((run / "run.json").read_text())[f"{side}_threshold"] for side in ("fg", "bg")]
    assert 0.6 < thresholds[0] - 0.05 < 0.7 and thresholds[0] - thresholds[1] == pytest.approx(0.15)
    assert "(trusted)" in json.loads((run / "eval.json").read_text())["protocol"][0]
    with pytest.raises(UsageError, match="threshold of kind trusted is that"):
        experiment(home, masks=steps)


def test_a_whole_mask_needs_no_cam(home):
    (sample,) = give(home, "mask", lambda mask: mask, [3])
    cam_path(home / "runs/cam-toy-1", sample.id).unlink()
    run = pseudo_of(home, "train.supervision=mixed")
    assert (read_mask(mask_path(run, sample.id)) == read_mask(sample.mask)).all()
    assert json.loads((run / "run.json").read_text())["lost"] == []


def test_a_label_map_that_was_changed_loses_its_photograph(home):
    (sample,) = give(home, "mask", lambda mask: mask, [3])
    file = read_trusted(home / "toy").file(sample.id)
    file.write_bytes(file.read_bytes()[:-9])
    run = pseudo_of(home, "train.supervision=mixed")
    (entry,) = json.loads((run / "run.json").read_text())["lost"]
    assert entry["id"] == sample.id and "is another one than" in entry["reason"]


def weights(home, *settings, masks=None):
    exp = experiment(home, *settings)
    step = plan_train(exp, masks, silent)[-1]
    run_step(step, exp, context(home))
    return step.path, (find_checkpoint(step.path / "checkpoints") / "model.safetensors").read_bytes()


def test_mixed_with_all_masks_is_full_supervision_to_the_bit(home):
    give(home, "mask", lambda mask: mask, range(6))
    masks = pseudo_of(home, "train.supervision=mixed")
    mixed, of_mixed = weights(home, "train.supervision=mixed", masks=masks)
    full, of_full = weights(home, "train.supervision=full")
    assert mixed != full and of_mixed == of_full
    origin = load_network(mixed, context(home)).origin
    assert origin.startswith("mixed supervision, 6 whole masks of 6 photographs (by hand) given, 2 iterations")
    again = experiment(home, "train.supervision=mixed", "relabel.steps=[]")
    step = plan_relabel(again, mixed)[-1]
    run_step(step, again, context(home))
    for sample in open_dataset(home / "toy").split("train"):  # a further round leaves them as they are
        assert (read_mask(mask_path(step.path, sample.id)) == read_mask(sample.mask)).all()


def test_a_network_of_the_labels_alone_and_cams_make_masks_together(home):
    """With a share of 1 the masks are the CAMs' at the middle of both thresholds, 0.45, and what is given."""
    (whole,) = give(home, "mask", lambda mask: mask, [0])
    partial, cams = ["train.supervision=partial", "relabel.steps=[]"], home / "runs/cam-toy-1"
    trained, _ = weights(home, *partial)
    steps = {}
    for share in (0.0, 0.5, 1.0):
        exp = experiment(home, *partial, f"relabel.cam_weight={share}")
        if not share:
            with pytest.raises(UsageError, match=r"relabel\.cam_weight is 0"):
                plan_relabel(exp, trained, cams)
            continue
        with pytest.raises(UsageError, match="no CAMs behind it"):
            run_step(plan_relabel(exp, trained)[-1], exp, context(home))
        steps[share] = plan_relabel(exp, trained, cams)[-1]
        run_step(steps[share], exp, context(home))
    run = steps[1.0].path
    assert len({step.path for step in steps.values()}) == 2
    for sample in open_dataset(home / "toy").split("train"):
        maps, classes, _ = read_cam(cam_path(cams, sample.id))
        expected = np.where(maps.max(0) > 0.45, np.asarray(classes, np.uint8)[maps.argmax(0)], 0)
        expected = read_mask(sample.mask) if sample == whole else expected
        assert (read_mask(mask_path(run, sample.id)) == expected).all()
    protocol = json.loads((run / "eval.json").read_text())["protocol"][0]
    assert "averaged with CAMs, threshold fixed (their share 1)" in protocol
    other = experiment(home, *partial, "relabel.cam_weight=1.0", "pseudo.threshold.bg=0.1")
    assert plan_relabel(other, trained, cams)[-1].path != run
    follower, _ = weights(home, "train.supervision=mixed", "relabel.cam_weight=0.5", masks=run)
    assert first_scores(follower).background == pytest.approx(0.45)


def test_trusted_masks_are_repeated_until_they_are_their_share():
    trusted = np.array([0, 1, 0, 0, 0, 1, 0, 0], bool)
    assert repeated(trusted, 0.1).tolist() == list(range(8))
    half = repeated(trusted, 0.5)
    assert half[:8].tolist() == list(range(8)) and np.bincount(half).tolist() == [1, 3, 1, 1, 1, 3, 1, 1]
    assert repeated(trusted, 1.0).tolist() == [1, 5]
    assert np.isin(repeated(trusted, 0.75), [1, 5]).mean() >= 0.75


def test_a_share_without_whole_masks_is_refused(home):
    give(home, "partial", lambda mask: drawn(mask, "points", 0), [0])
    masks = pseudo_of(home, "train.supervision=mixed")
    with pytest.raises(DataError, match="no training photograph has one"):
        weights(home, "train.supervision=mixed", "train.trusted_share=0.5", masks=masks)
    with pytest.raises(UsageError, match="trusted_share is for supervision = 'mixed'"):
        experiment(home, "train.trusted_share=0.5")


def test_what_somebody_vouches_for_goes_where_the_mask_goes(home):
    """Labels that are given are class 1 and masks of others class 0, so that each tells the other."""
    one, none = np.uint8(1), np.uint8(255)
    (partial,) = give(home, "partial", lambda mask: np.where(drawn(mask, "scribbles", 0) != 255, one, none), [2])
    (whole,) = give(home, "mask", lambda mask: np.where(mask == 0, one, none), [3])
    exp = experiment(home, "train.supervision=mixed", "train.noise.consistency={}", "train.crop=64")
    trusted = read_trusted(home / "toy")
    for sample in open_dataset(home / "toy").split("train"):
        labels = trusted.of(sample.id)
        said = np.zeros((48, 48), bool) if labels is None else labels.read() != 255
        masked = replace(sample, mask=home / f"{sample.id}.png")
        write_mask(masked.mask, said.astype(np.uint8), exp.dataset.colors)
        for seed in range(4):
            item = training_item(
                masked, np.random.default_rng(seed), config=exp.preset.train, num_classes=6, confidence=None,
                trusted=trusted,
            )  # fmt: skip
            assert item["vouched"].dtype == np.uint8 and item["vouched"].shape == (64, 64)
            assert (item["vouched"] == (item["mask"] == 1)).all()
            rows, columns = item["size"]
            assert not item["vouched"][rows:].any() and not item["vouched"][:, columns:].any()
            assert item["vouched"].any() or sample not in (partial, whole)


def test_consistency_trains_on_what_nobody_vouches_for(home):
    give(home, "mask", lambda mask: mask, [3])
    masks = pseudo_of(home, "train.supervision=mixed")
    plain, weights_of_plain = weights(home, "train.supervision=mixed", masks=masks)
    views = ("train.noise.consistency={threshold=0.2}", "train.log_interval=1")
    run, weights_with_views = weights(home, "train.supervision=mixed", *views, masks=masks)
    assert plain != run and weights_of_plain != weights_with_views
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_consistency"] > 0 for row in rows if row["kind"] == "train")


@pytest.mark.parametrize("supervision", ["weak", "full", "mixed"])
def test_labels_that_a_training_passes_over_are_said(home, supervision, monkeypatch):
    said = []
    monkeypatch.setattr("wsss_cli.stages.preflight.say", said.append)
    give(home, "partial", lambda mask: drawn(mask, "points", 0), (0, 3))
    exp = experiment(home, f"train.supervision={supervision}")
    problems(exp, plan_train(exp, None, silent), "cpu")
    if supervision == "mixed":
        assert not said
        return
    (line,) = said
    assert line.startswith("labels of your own of 2 photographs")
    assert line.endswith(f"train.supervision is {supervision}; --set train.supervision=mixed takes them")


def test_labels_of_photographs_that_are_not_trained_on_are_no_mixed_supervision(home):
    dataset = open_dataset(home / "toy")
    (first, *_) = dataset.split("val")
    add_trusted(dataset, [(first, first.mask, read_mask(first.mask))], "mask", "by hand")
    for limit, words in ((0, "none of the 6 training images has labels in"), (2, "")):
        exp = experiment(home, "train.supervision=mixed", f"dataset.limit={limit}")
        faults = problems(exp, plan_train(exp, None, silent), "cpu")
        assert words in "\n".join(str(fault) for fault in faults) and bool(faults) == bool(words)
