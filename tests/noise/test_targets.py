import math

import numpy as np
import pytest
import torch
from references.noise import probability_by_scale, targets_by_pixel
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.config.noise import NoiseConfig
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import fit
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run, read_metrics
from wsss_cli.errors import UsageError
from wsss_cli.losses.collision import collision_cross_entropy
from wsss_cli.losses.cross_entropy import cross_entropy
from wsss_cli.losses.dice import dice_loss
from wsss_cli.losses.focal import focal_loss
from wsss_cli.losses.lovasz import lovasz_loss
from wsss_cli.noise.targets import NoisyTargets, valid_pixels, wanted
from wsss_cli.stages.segmentation import SegmentationTask

K, SIDE = 3, 16


class Tiny(nn.Module):
    """A network with the interface of Segmentor: logits at stride 4, an auxiliary head, batch norm, dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = K
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))
        self.backbone.normalise = lambda x: x / 255 - 0.5
        self.head = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(6, K, 1))
        self.aux = nn.Conv2d(6, K, 1)

    def forward(self, x, aux=False):
        features = self.backbone(x)
        return (self.head(features), self.aux(features)) if aux else self.head(features)


BALANCED = '{kind="cross-entropy", average="valid", balance="fg-bg"}'
TWO_TERMS = f'loss=[{BALANCED}, {{kind="gated-crf", average="valid"}}]'
LOVASZ = 'loss=[{kind="cross-entropy"}, {kind="lovasz"}]'
TERMS = (
    f"loss=[{BALANCED}]",
    'loss=[{kind="cross-entropy", average="valid", class_weights=[0.5, 1.0, 2.0]}]',
    'loss=[{kind="cross-entropy", average="valid", ohem={min_kept=50}}]',
    'loss=[{kind="cross-entropy", average="valid"}, {kind="focal"}]',
    'loss=[{kind="cross-entropy", average="valid"}, {kind="dice"}]',
    'loss=[{kind="cross-entropy", average="valid"}, {kind="lovasz"}]',
)


def configured(*overrides, iters=40):
    given = [f"train.{text}" if text.startswith("loss=") else f"train.noise.{text}" for text in overrides]
    return load_preset("toy", [f"train.iters={iters}", *given]).train


def batch(step, size=4):
    """Crops of two colours; the mask is right on the left, undecided in the middle, and padded in the last rows."""
    rng = torch.Generator().manual_seed(step)
    image = torch.randint(0, 60, (size, SIDE, SIDE, 3), generator=rng)
    image[:, :, SIDE // 2 :, 0] += 190
    mask = torch.zeros(size, SIDE, SIDE, dtype=torch.uint8)
    mask[:, :, SIDE // 2 :] = 1
    mask[torch.rand(mask.shape, generator=rng) < 0.1] = 1
    mask[:, :, 6:10], mask[:, 14:] = 255, 255
    tags = torch.tensor([[1, 1, 0]] * size, dtype=torch.uint8)
    confidence = torch.randint(128, 256, mask.shape, generator=rng).to(torch.uint8)
    confidence[mask == 255] = 0
    rows = torch.tensor([[14, SIDE]] * size)
    return {"image": image.to(torch.uint8), "mask": mask, "confidence": confidence, "tags": tags, "size": rows}


def made(config, given, *, step=0, model=None):
    targets = NoisyTargets(model or Tiny(), config)
    targets.step = step
    x = targets.model.backbone.normalise(given["image"].permute(0, 3, 1, 2))
    return targets.make(given, x, torch.zeros(len(x), K, SIDE // 4, SIDE // 4))


def plain(model):
    """The logits [K, h, w] of one image, as arrays."""

    def network(image):
        with torch.no_grad():
            return model(torch.from_numpy(image)[None].float())[0].double().numpy()

    return network


# -- the default changes nothing ---------------------------------------------------------------------------------------


def test_without_methods_the_losses_are_the_plain_ones_to_the_bit():
    config, model, given = configured(), Tiny().eval(), batch(0)
    losses = SegmentationTask(model, config, None).losses({key: given[key] for key in ("image", "mask")})
    logits, aux = model(model.backbone.normalise(given["image"].permute(0, 3, 1, 2)), aux=True)
    assert set(losses) == {"decode", "aux"}
    assert torch.equal(losses["decode"], cross_entropy(logits, given["mask"], "valid"))
    assert torch.equal(losses["aux"], 0.4 * cross_entropy(aux, given["mask"], "valid"))
    task = SegmentationTask(model, config, None)
    assert config.noise == NoiseConfig() and wanted(config) == frozenset() and task.state() == {}


# -- single methods ----------------------------------------------------------------------------------------------------


def test_confidence_is_the_weight():
    given = batch(1)
    target, weight = made(configured("confidence=weight"), given)
    assert torch.equal(target, given["mask"].long())
    torch.testing.assert_close(weight, given["confidence"].float() / 255)


def test_little_confidence_is_no_label():
    given = batch(1)
    target, weight = made(configured("confidence=ignore", "min_confidence=0.8"), given)
    low = given["confidence"] < 204  # 0.8 of 255
    assert weight is None and low.any() and not low.all()
    assert (target[low] == 255).all() and torch.equal(target[~low], given["mask"].long()[~low])


def test_both_heads_get_the_same_targets_and_weights():
    config, model, given = configured("confidence=weight", TWO_TERMS), Tiny().eval(), batch(2)
    losses = SegmentationTask(model, config, None).losses(given)
    logits, aux = model(model.backbone.normalise(given["image"].permute(0, 3, 1, 2)), aux=True)
    weight = given["confidence"].float() / 255
    assert set(losses) == {"decode", "aux", "gated_crf"} and losses["gated_crf"] > 0
    for name, factor, scores in (("decode", 1.0, logits), ("aux", 0.4, aux)):
        expected = cross_entropy(scores, given["mask"], "valid", weight=weight, balance="fg-bg")
        torch.testing.assert_close(losses[name], factor * expected)


def test_soft_labels_make_both_heads_cross_entropies_collisions():
    config, model, given = configured("confidence=soft"), Tiny().eval(), batch(2)
    assert wanted(config) == {"confidence", "tags"}
    losses = SegmentationTask(model, config, None).losses(given)
    outputs = model(model.backbone.normalise(given["image"].permute(0, 3, 1, 2)), aux=True)
    certainty = given["confidence"].float() / 255
    for name, factor, logits in zip(("decode", "aux"), (1.0, 0.4), outputs, strict=True):
        expected = collision_cross_entropy(logits, given["mask"], certainty, given["tags"], "valid")
        torch.testing.assert_close(losses[name], factor * expected)
        assert losses[name] < factor * cross_entropy(logits, given["mask"], "valid")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["teacher={}"], "teacher with confidence = 'soft'"),
        (["update={}"], "update with confidence = 'soft'"),
        ([f"loss=[{BALANCED}]"], "'soft' has a cross-entropy of its own, without balance"),
    ],
)
def test_what_does_not_go_with_soft_labels_is_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        configured("confidence=soft", *settings)


def test_the_terms_of_the_loss_add_up_and_the_auxiliary_head_has_the_cross_entropies():
    terms = [
        {"kind": "dice", "weight": 3.0},
        {"kind": "cross-entropy", "average": "valid"},
        {"kind": "cross-entropy", "weight": 0.5, "class_weights": [0.5, 1.0, 2.0]},
        {"kind": "lovasz", "weight": 0.25},
        {"kind": "focal", "weight": 2.0, "gamma": 1.5, "average": "valid"},
    ]
    text = ", ".join("{" + ", ".join(f"{key} = {value!r}" for key, value in term.items()) + "}" for term in terms)
    model, given = Tiny().eval(), batch(2)
    losses = SegmentationTask(model, configured(f"loss=[{text}]"), None).losses(given)
    assert list(losses) == ["decode", "aux", "dice", "lovasz", "focal"]
    mask = given["mask"]
    logits, aux = model(model.backbone.normalise(given["image"].permute(0, 3, 1, 2)), aux=True)
    decode, side = (
        cross_entropy(z, mask, "valid") + 0.5 * cross_entropy(z, mask, class_weights=[0.5, 1.0, 2.0])
        for z in (logits, aux)
    )
    expected = {
        "decode": decode,
        "aux": 0.4 * side,
        "dice": 3.0 * dice_loss(logits, mask),
        "lovasz": 0.25 * lovasz_loss(logits, mask),
        "focal": 2.0 * focal_loss(logits, mask, 1.5, "valid"),
    }
    torch.testing.assert_close(losses, expected)


class Sure(Tiny):
    """Class 1 with probability 0.95 at all pixels within the tags {0, 1}; untagged class 2 has the highest logit."""

    def forward(self, x):
        logits = torch.tensor([0.0, math.log(19.0), 9.0]).view(1, K, 1, 1)
        return logits.expand(len(x), K, -(-x.shape[2] // 4), -(-x.shape[3] // 4))


def test_the_teacher_fills_what_is_undecided_but_not_the_padding():
    given = batch(3)
    target, weight = made(configured("teacher.weight=0.5"), given, step=10, model=Sure())
    undecided = (given["mask"] == 255) & valid_pixels(given["size"], SIDE, SIDE)
    assert undecided.any() and (target[undecided] == 1).all()
    torch.testing.assert_close(weight[undecided], torch.full_like(weight[undecided], 0.475))
    assert torch.equal(target[~undecided], given["mask"].long()[~undecided]) and (weight[~undecided] == 1).all()


def test_the_teacher_waits_for_its_time_and_for_certainty():
    given = batch(3)
    for config, step in ((configured("teacher={}"), 9), (configured("teacher.threshold=0.96"), 10)):
        target, _ = made(config, given, step=step, model=Sure())
        assert torch.equal(target, given["mask"].long())


def test_uncertainty_multiplies_every_weight():
    given = batch(4)
    scales = "uncertainty={ scales = [0.3333333333333333, 3.0] }"
    _, weight = made(configured("confidence=weight", "teacher={}", scales), given, step=10, model=Sure())
    # background 0.05 becomes 3/22 and 1/58: variance ((3/22 - 1/58) / 2)^2 for each class, against 1/16
    steady = 1 - 16 * ((3 / 22 - 1 / 58) / 2) ** 2
    labelled = given["mask"] != 255
    torch.testing.assert_close(weight[labelled], given["confidence"][labelled] / 255 * steady)


@pytest.mark.parametrize("teacher", [True, False])
def test_flat_classes_get_new_labels(teacher):
    given, model = batch(5), Sure().train()
    config = configured("update={}", "confidence=weight", *(["teacher.start=0.9"] if teacher else []))
    targets = NoisyTargets(model, config)
    state = targets.state()
    state["update"]["corrected"][0] = True
    targets.load_state(state)
    x = model.backbone.normalise(given["image"].permute(0, 3, 1, 2))
    target, weight = targets.make(given, x, torch.zeros(4, K, 4, 4))
    was = given["mask"] == 0
    assert (target[was] == 1).all() and torch.equal(target[~was], given["mask"].long()[~was])
    torch.testing.assert_close(weight[was], torch.full_like(weight[was], 0.95))
    torch.testing.assert_close(weight[~was], given["confidence"][~was] / 255)
    assert model.training


def test_probabilities_are_averaged_over_scales():
    model, config = Tiny().eval(), configured("update={}")
    x = model.backbone.normalise(batch(6)["image"].permute(0, 3, 1, 2))
    tags = torch.tensor([[1, 1, 0]] * 4)
    found = NoisyTargets(model, config)._probability(x, tags, (1.0, 0.5))
    for image, row in enumerate(x.double().numpy()):
        expected = probability_by_scale(plain(model), row, tags[image], (1.0, 0.5))
        np.testing.assert_allclose(found[image].detach().numpy(), expected, atol=1e-6)
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize(
    "overrides",
    [
        ["confidence=ignore", "min_confidence=0.7", "teacher={ threshold = 0.55, weight = 0.5 }"],
        ["confidence=weight", "update.threshold=0.55"],
        [
            *("confidence=weight", "update={ threshold = 0.55, scales = [0.7, 1.0] }"),
            *("teacher.threshold=0.6", "uncertainty.scales=[0.5, 3.0]"),
        ],
    ],
)
def test_methods_together_are_those_of_the_loops(overrides):
    config, given = configured(*overrides), batch(7)
    model, trained = Tiny().eval(), Tiny().eval()
    with torch.no_grad():
        for network, factor in ((model, 4.0), (trained, -5.0)):
            for parameter in network.parameters():
                parameter.mul_(factor)
    targets = NoisyTargets(model, config)
    targets.model, targets.step = trained, 20  # the teacher is not the network
    if config.noise.update:
        targets.load_state(
            {**targets.state(), "update": {**targets.curves.state(), "corrected": torch.tensor([1, 0, 0])}}
        )
        targets.step = 20
    x = model.backbone.normalise(given["image"].permute(0, 3, 1, 2))
    found, weight = targets.make(given, x, torch.zeros(4, K, 4, 4))
    arrays = {key: value.numpy() for key, value in given.items()}
    asked = plain(model if config.noise.teacher else trained)
    scales = config.noise.update.scales if config.noise.update else (1.0,)
    images = list(zip(x.double().numpy(), arrays["tags"], strict=True))
    averaged, taught = (
        np.array([probability_by_scale(asked, *image, over) for image in images]) for over in (scales, (1.0,))
    )
    labels, weights = targets_by_pixel(arrays, config.noise, (0,), averaged, taught)
    np.testing.assert_array_equal(found.numpy(), labels)
    np.testing.assert_allclose(weight.numpy(), weights, atol=1e-5)
    assert (labels != arrays["mask"]).sum() > 20


def test_valid_pixels_by_hand():
    found = valid_pixels(torch.tensor([[1, 2], [2, 3]]), 2, 3)
    assert found.int().tolist() == [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]


# -- training ----------------------------------------------------------------------------------------------------------

ALL = (
    *(TWO_TERMS, "confidence=weight", "uncertainty={}"),
    *("teacher={ start = 0.3, decay = 0.8, threshold = 0.6 }", "update={ points = 10, threshold = 0.6 }"),
)


class CrashError(Exception):
    pass


def train(path, config, crash_at=None):
    torch.set_num_threads(1)
    said = []
    task = SegmentationTask(Tiny(), config, lambda model: {}, said.append)
    task.in_head = lambda name: False
    task.val_interval = 0

    def batches(start):
        step = start
        while True:
            if step == crash_at:
                raise CrashError
            yield [batch(step)]
            step += 1

    config = config.model_copy(update={"precision": "fp32", "log_interval": 1, "checkpoint_interval": 7})
    with open_run(path, "train", load_preset("toy"), "x", Inputs(dataset="d", classes=(), colors=())) as run:
        for _ in fit(task, batches, config, run, Context(torch.device("cpu"), path), seed=1):
            pass
        run.finish()
    return task, said


def logged(path):
    return [(row["step"], row["loss"], row["loss_decode"], row["loss_gated_crf"]) for row in read_metrics(path)]


def test_a_training_that_crashed_ends_with_the_bits_of_an_unbroken_one(tmp_path):
    config = configured(*ALL)
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 0.02})})
    whole, said = train(tmp_path / "whole", config)
    assert any("IoU curve of class" in line for line in said)
    curves = whole.targets.curves
    first = int(said[0].split()[1].rstrip(":"))
    crash = first + 2  # the flat class is known from the checkpoint, or found again after it
    for number, at in enumerate((crash, 30)):
        path = tmp_path / f"broken-{number}"
        with pytest.raises(CrashError):
            train(path, config, at)
        resumed, _ = train(path, config)
        for a, b in ((whole.model, resumed.model), (whole.targets.teacher.model, resumed.targets.teacher.model)):
            assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert torch.equal(torch.nan_to_num(curves.curves), torch.nan_to_num(resumed.targets.curves.curves))
        assert torch.equal(curves.corrected, resumed.targets.curves.corrected)
        assert logged(tmp_path / "whole") == logged(path)
    assert curves.corrected.any() and len(curves.curves) == 10


def test_each_method_changes_the_training(tmp_path):
    plain, _ = train(tmp_path / "plain", configured(iters=6))
    seen = {tuple(plain.model.head[1].weight.flatten().tolist())}
    crf = 'loss=[{kind="cross-entropy", average="valid"}, {kind="gated-crf"}]'
    methods = (crf, *TERMS, "confidence=weight", "confidence=ignore", "teacher.threshold=0.0")
    for number, method in enumerate(methods):
        task, _ = train(tmp_path / str(number), configured(method, iters=6))
        seen.add(tuple(task.model.head[1].weight.flatten().tolist()))
    assert len(seen) == 1 + len(methods)


# -- presets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["noise.uncertainty={}"], "uncertainty without teacher"),
        (["noise.uncertainty.scales=[2.0, 2.0]", "noise.teacher={}"], "two different scales"),
        (["supervision=full", "noise.confidence=weight"], "true masks have no confidence maps"),
        (["supervision=full", "noise.teacher={}"], "255 in a true mask is no missing label"),
        (["supervision=full", "noise.update={}"], "true masks are not to be corrected"),
        (["iters=10", "noise.update={}"], "points 20 is above iters 10"),
        (["noise.teacher.start=1.0"], "less than 1"),
        (["noise.update.scales=[]"], "at least 1 item"),
        (['loss=[{kind="cross-entropy", balance="bg-fg"}]'], "'none' or 'fg-bg'"),
        (['loss=[{kind="cross-entropy", balance="fg-bg", ohem={}}]'], "balance 'fg-bg' and ohem both say"),
        (['loss=[{kind="cross-entropy", balance="fg-bg", class_weights=[1.0]}]'], "and class_weights both say"),
        (['loss=[{kind="cross-entropy", class_weights=[0.0, 0.0]}]'], "class_weights are all 0"),
        (["loss=[]"], "at least 1 item"),
        (['loss=[{kind="focal"}]'], "loss has no term of kind cross-entropy, by which the auxiliary head learns"),
        ([LOVASZ, "noise.confidence=weight"], "takes no weights, and noise.confidence = 'weight' gives them"),
        ([LOVASZ, "noise.teacher={}"], "lovasz ranks pixels and takes no weights, and noise.teacher gives them"),
        (["noise.teachr={}"], "unknown key train.noise.teachr"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(overrides, reason):
    with pytest.raises(UsageError, match=reason):
        load_preset("toy", [f"train.{text}" for text in overrides])


def test_terms_go_with_full_supervision_and_lovasz_with_ignored_pixels():
    assert len(load_preset("toy", ["train.supervision=full", f"train.{TWO_TERMS}"]).train.loss) == 2
    assert len(load_preset("toy", [f"train.{LOVASZ}", "train.noise.confidence=ignore"]).train.loss) == 2


def test_a_table_is_switched_on_and_off_and_survives_the_lock_file(tmp_path):
    on = load_preset("toy", ["train.noise.teacher={}", "train.noise.update.points=7"])
    assert on.train.noise.teacher.decay == 0.999 and on.train.noise.update.points == 7
    (tmp_path / "preset.lock.toml").write_text(to_toml(on))
    assert load_preset(str(tmp_path / "preset.lock.toml")).train == on.train
    off = load_preset(str(tmp_path / "preset.lock.toml"), ["train.noise.teacher=false", "train.noise.update=false"])
    assert off.train == load_preset("toy").train
