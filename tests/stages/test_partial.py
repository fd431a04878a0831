"""Training on labels that were drawn, alone: without a classifier, CAMs and pseudo masks."""

import json

import numpy as np
import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.drawn import drawn
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.data.trusted import add_trusted, read_trusted
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import read_inputs, read_record
from wsss_cli.errors import DataError, UsageError
from wsss_cli.stages.paths import mask_path
from wsss_cli.stages.pipeline import run_step
from wsss_cli.stages.plan import open_experiment, plan_run, plan_train
from wsss_cli.stages.preflight import problems
from wsss_cli.stages.training_data import training_item, training_samples
from wsss_cli.talk import silent

SMALL = [
    "train.crop=32",
    "train.batch=2",
    "train.iters=2",
    "train.val_interval=0",
    "train.aux.weight=0",
    "eval.scales=[1.0]",
]
GATED = 'train.loss=[{kind="cross-entropy", average="valid"}, {kind="gated-crf"}]'


@pytest.fixture
def home(tmp_path):
    prepare_toy(tmp_path / "toy", images=6, val=2, size=48)
    return tmp_path


def give(home, change, places, kind="partial"):
    dataset = open_dataset(home / "toy")
    samples = [dataset.split("train")[place] for place in places]
    add_trusted(dataset, [(one, one.mask, change(read_mask(one.mask))) for one in samples], kind, "by hand")
    return samples


def scribbled(mask):
    return drawn(mask, "scribbles", 0)


def experiment(home, *settings, supervision="partial"):
    every = [f'dataset.path="{home / "toy"}"', f"train.supervision={supervision}", *SMALL, *settings]
    return open_experiment(load_preset("toy", every), home / "runs")


def run(home, *settings, plan=plan_train, supervision="partial"):
    """The steps that were done."""
    exp = experiment(home, *settings, supervision=supervision)
    steps = plan(exp, None, silent) if plan is plan_train else plan(exp, silent)
    for step in steps:
        if step.stage != "eval":
            run_step(step, exp, Context(torch.device("cpu"), home / "runs"))
    return steps


def weights(step):
    return (find_checkpoint(step.path / "checkpoints") / "model.safetensors").read_bytes()


def test_there_are_no_cams_to_mix_in_and_that_is_said_before_a_training(home):
    give(home, scribbled, [0, 2, 3])
    for plan in (plan_run, lambda exp, say: plan_train(exp, None, say)):
        with pytest.raises(UsageError, match=r"cam_weight 0\.7: a network of labels alone has no CAMs"):
            plan(experiment(home, "rounds=2", "relabel.cam_weight=0.7"), silent)
    assert len(plan_train(experiment(home, "relabel.cam_weight=0.7"), None, silent)) == 1  # one round has none, either


def test_labels_that_tell_nothing_apart_are_refused_and_untold_classes_are_named(home, capsys):
    give(home, lambda mask: drawn(mask, "boxes", 0), [0, 3])
    exp = experiment(home)
    train = plan_train(exp, None, silent)
    (fault,) = problems(exp, train, "cpu")
    assert isinstance(fault, DataError) and "hold background alone" in fault.message and "--box-fill crf" in fault.hint
    samples = give(home, scribbled, [0, 3])
    assert problems(exp, train, "cpu") == []
    told = set().union(*(np.unique(scribbled(read_mask(one.mask))).tolist() for one in samples))
    untold = [name for number, name in enumerate(exp.dataset.classes) if number not in told]
    assert untold and f"no label of a pixel is {', '.join(untold)}: " in capsys.readouterr().err
    give(home, lambda mask: np.arange(mask.size, dtype=np.uint8).reshape(mask.shape) % exp.dataset.num_classes, [0])
    assert problems(exp, train, "cpu") == [] and "no label" not in capsys.readouterr().err


def test_nothing_but_the_network_is_trained(home):
    give(home, scribbled, [0, 2, 3])
    steps = run(home, plan=plan_run)
    assert [step.stage for step in steps] == ["train", "eval"]
    (trained,) = (home / "runs").iterdir()
    assert trained == steps[0].path and not read_record(trained).lost and read_inputs(trained).pseudo_run is None
    assert read_inputs(trained).trusted_words == "3 partial label maps of 6 photographs (by hand)"


def test_what_is_learned_from_is_the_labels_and_no_more(home):
    samples = give(home, scribbled, [1, 4])
    exp, trusted = experiment(home, "train.noise.teacher={start=0}"), read_trusted(home / "toy")
    chosen = training_samples(exp.dataset.split("train"), exp.preset.train, None, trusted)
    assert [one.id for one in chosen] == [one.id for one in samples]
    for one, before in zip(chosen, samples, strict=True):
        assert (read_mask(one.mask) == scribbled(read_mask(before.mask))).all()
        untagged = before.__class__(one.id, one.image, one.mask, ())
        config = exp.preset.train.model_copy(update={"crop": 64})
        item = training_item(
            untagged, np.random.default_rng(0), config=config, num_classes=exp.dataset.num_classes, confidence=None
        )
        labels = set(np.unique(read_mask(one.mask))) - {255}
        assert set(np.flatnonzero(item["tags"])) == labels | {0}  # a scribble is a tag, too
        assert set(np.unique(item["mask"])) <= labels | {255} and (item["mask"] == 255).mean() > 0.5


def test_with_whole_masks_of_all_it_is_full_supervision_to_the_bit(home):
    give(home, lambda mask: mask, range(6), "mask")
    assert weights(run(home)[0]) == weights(run(home, supervision="full")[0])


def test_other_labels_are_another_run_and_the_same_ones_the_same(home):
    give(home, scribbled, [0, 1])
    first = run(home)[0].path
    assert plan_train(experiment(home), None, silent)[0].done
    give(home, scribbled, [2])
    again = plan_train(experiment(home), None, silent)[0]
    assert not again.done and again.path != first


def test_gated_crf_and_a_teacher_learn_where_nothing_is_drawn(home):
    give(home, scribbled, range(4))
    plain = run(home)[0]
    taught = run(home, GATED, "train.noise.teacher={start=0.0, threshold=0.0}", "train.iters=4")[0]
    assert weights(plain) != weights(taught)
    rows = [json.loads(line) for line in (taught.path / "metrics.jsonl").read_text().splitlines()]
    (last,) = [row for row in rows if row["kind"] == "train"][-1:]
    assert last["loss_gated_crf"] > 0 and last["loss_decode"] > 0


def test_a_further_round_labels_all_photographs_and_keeps_what_was_drawn(home):
    samples = give(home, scribbled, [0, 5])
    steps = run(home, "rounds=2")
    assert [step.stage for step in steps] == ["train", "relabel", "train"]
    masks = steps[1].path
    for sample in open_dataset(home / "toy").split("train"):
        mask = read_mask(mask_path(masks, sample.id))
        assert (mask != 255).any()
        if sample in samples:
            said = scribbled(read_mask(sample.mask))
            assert (mask[said != 255] == said[said != 255]).all()
    assert read_inputs(steps[2].path).pseudo_run == str(masks)


def test_labels_that_were_changed_by_hand_are_refused(home):
    (sample,) = give(home, scribbled, [0])
    write_mask(read_trusted(home / "toy").file(sample.id), np.zeros((48, 48), np.uint8), ((0, 0, 0),) * 6)
    with pytest.raises(DataError, match="is another one than"):
        run(home)


def told(home, *settings):
    exp = experiment(home, *settings)
    return "\n".join(str(fault) for fault in problems(exp, plan_train(exp, None, silent), "cpu"))


def test_what_cannot_be_trained_is_said_before(home):
    with pytest.raises(DataError, match=r"no labels of its own to train on \(wsss prepare labels .* SOURCE adds them"):
        told(home)
    give(home, scribbled, [0])
    assert told(home) == ""
    index = home / "toy/trusted/index.csv"
    index.write_text(index.read_text().replace("train_000000", "val_000000"))
    assert "none of the 6 training images has labels in" in told(home)
    index.write_text(index.read_text().replace("val_000000", "train_000000"))
    for settings, words in (
        (["train.noise.confidence=weight"], "labels that were drawn have no confidence maps"),
        (["train.noise.update={points=5}", "train.iters=9"], "are not to be corrected"),
        (["train.trusted_share=0.5"], "trusted_share is for supervision = 'mixed'"),
    ):
        with pytest.raises(UsageError, match=words):
            experiment(home, *settings)
    with pytest.raises(UsageError, match="--masks is for weak supervision"):
        plan_train(experiment(home), home, silent)
    for file in (home / "toy/splits").glob("train.csv"):
        rows = [line.split(",") for line in file.read_text().splitlines()]
        file.write_text(
            "\n".join(",".join([*row[:3], row[3] * (not n), *row[4:]]) for n, row in enumerate(rows)) + "\n"
        )
    assert "keep to the tags, and no image of split 'train'" in told(home, "rounds=2")
    assert "tags" not in told(home)
