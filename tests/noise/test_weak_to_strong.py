"""Strong views agree with the weak one where nobody vouches for a label: `[train.noise.consistency]`."""

import math

import numpy as np
import pytest
import torch
from references import weak_to_strong as plain
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.config.noise import ConsistencyConfig
from wsss_cli.engine.context import Context
from wsss_cli.engine.fit import fit
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run, read_metrics
from wsss_cli.errors import UsageError
from wsss_cli.noise.consistency import Consistency, agreement, draw_view, strong_colours, sure_classes
from wsss_cli.noise.targets import wanted
from wsss_cli.stages.segmentation import SegmentationTask

K, SIDE, COUNT = 3, 16, 4


class Tiny(nn.Module):
    """A network with the interface of Segmentor: logits at stride 4, batch norm, dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = K
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))
        self.backbone.normalise = lambda x: x / 255 - 0.5
        self.backbone.channels = (6,)
        self.head = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(6, K, 1))
        self.aux = nn.Conv2d(6, K, 1)

    def forward(self, x, aux=False, factors=None):
        features = self.backbone(x)
        logits = self.head(features)
        if not aux:
            return logits
        side = self.aux(features)
        return (logits, side) if factors is None else (logits, side, self.head(features * factors[0][:, :, None, None]))


def batch(step=0, part=0):
    """Crops of which half is vouched for, some is not labelled, and the last rows are padding."""
    rng = torch.Generator().manual_seed(step * 10 + part)
    image = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), generator=rng)
    image[:, 14:] = 0
    mask = torch.randint(0, 2, (COUNT, SIDE, SIDE), generator=rng)
    mask[:, :, 6:10], mask[:, 14:] = 255, 255
    vouched = (mask != 255) & (torch.arange(SIDE) < 8)
    return {
        "image": image.to(torch.uint8),
        "mask": mask.to(torch.uint8),
        "vouched": vouched.to(torch.uint8),
        "tags": torch.tensor([[1, 1, 0], [1, 1, 1]] * 2, dtype=torch.uint8),
        "size": torch.tensor([[14, SIDE]] * COUNT),
        "draw": (3, step, part),
    }


def configured(*settings, iters=12):
    return load_preset("toy", [f"train.iters={iters}", *(f"train.noise.{setting}" for setting in settings)]).train


def by_loops(network, config, given, probability):
    """The whole term of a batch by the plain reference; the network in evaluation mode, weights in float32."""
    arrays = {key: np.asarray(value) for key, value in given.items() if key != "draw"}
    inside = np.zeros((COUNT, SIDE, SIDE), bool)
    inside[:, :14] = True
    counted = inside & (arrays["vouched"] == 0)

    def logits(image):
        with torch.no_grad():
            x = network.backbone.normalise(torch.from_numpy(image).permute(0, 3, 1, 2))
            return network(x).double().numpy()

    strong = 0.0
    for number in range(config.views):
        view = draw_view(given["draw"], number, COUNT, (SIDE, SIDE), config.cutmix)
        draws = (view.brightness, view.contrast, view.saturation, view.hue, view.grey, view.sigma)
        shown = np.stack(
            [plain.recoloured(arrays["image"][b], inside[b], *(values[b] for values in draws)) for b in range(COUNT)]
        )
        shown = plain.mixed(shown, shown, view.box, view.partner)
        target = plain.mixed(np.moveaxis(probability, 1, -1), np.moveaxis(probability, 1, -1), view.box, view.partner)
        these = plain.mixed(counted, counted, view.box, view.partner)
        strong += plain.agreement_by_pixel(logits(shown), np.moveaxis(target, -1, 1), these, config.threshold)
    strong /= config.views
    if not config.features:
        return config.weight * strong
    rng = np.random.default_rng((*given["draw"], 0))
    factors = torch.from_numpy(rng.integers(0, 2, (COUNT, 6)).astype(np.float32) * 2)
    with torch.no_grad():
        x = network.backbone.normalise(given["image"].permute(0, 3, 1, 2))
        changed = network.head(network.backbone(x) * factors[:, :, None, None]).double().numpy()
    return config.weight * (
        0.5 * strong + 0.5 * plain.agreement_by_pixel(changed, probability, counted, config.threshold)
    )


def some_probability(seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.3] * K, (COUNT, SIDE, SIDE)).transpose(0, 3, 1, 2)


# -- the term ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"views": 1, "features": False, "cutmix": 0.0}, {"views": 1, "cutmix": 1.0, "weight": 0.5, "threshold": 0.6}],
)
def test_the_term_is_that_of_the_loops(settings):
    config, network = ConsistencyConfig(**settings), Tiny().eval()
    given, probability = batch(5), some_probability()
    term = Consistency(config, network.backbone.channels)
    x = network.backbone.normalise(given["image"].permute(0, 3, 1, 2))
    factors = term.factors(given)
    perturbed = None if factors is None else network(x, aux=True, factors=factors)[2]

    def logits_of(image):
        return network(network.backbone.normalise(image.permute(0, 3, 1, 2)))

    loss = term.loss(given, torch.from_numpy(probability).float(), perturbed, logits_of)
    assert loss.item() == pytest.approx(by_loops(network, config, given, probability), rel=2e-3)
    assert loss.item() > 0


def test_agreement_by_hand():
    # three pixels count, of which one is sure: -log softmax(0, log 3)[1] = log(4/3), over three
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    probability = torch.tensor([[[[0.02, 0.5], [0.3, 0.01]], [[0.98, 0.5], [0.7, 0.99]]]])
    target = sure_classes(probability, 0.95)
    assert target.tolist() == [[[1, 255], [255, 1]]]
    counted = torch.tensor([[[True, True], [True, False]]])
    assert agreement(logits, target, counted).item() == pytest.approx(math.log(4 / 3) / 3)


def test_where_nothing_is_sure_or_nothing_counts_the_term_is_nought_with_a_gradient_of_nought():
    for target, counted in ((255, True), (1, False)):
        logits = torch.randn(2, K, 2, 2, requires_grad=True)
        loss = agreement(logits, torch.full((2, 4, 4), target), torch.full((2, 4, 4), counted))
        loss.backward()
        assert loss.item() == 0 and (logits.grad == 0).all()
    sure_of_nothing = SegmentationTask(Tiny(), configured("consistency.threshold=1.0"), None).losses(batch())
    assert sure_of_nothing["consistency"].item() == 0
    vouched = batch() | {"vouched": torch.ones(COUNT, SIDE, SIDE, dtype=torch.uint8)}
    assert SegmentationTask(Tiny(), configured("consistency.threshold=0.0"), None).losses(vouched)["consistency"] == 0


def test_the_weak_view_is_the_networks_own_or_the_teachers_within_the_tags():
    given, network = batch(), Tiny().eval()
    x = network.backbone.normalise(given["image"].permute(0, 3, 1, 2))
    logits = network(x)
    for settings in (["consistency={}"], ["consistency={}", "teacher.start=0.0"], ["consistency={}", "teacher={}"]):
        task = SegmentationTask(network, configured(*settings), None)
        teacher = task.targets.teacher
        if teacher:
            with torch.no_grad():
                teacher.model.head[1].weight.mul_(-5)
        big = nn.functional.interpolate((teacher.model if teacher else network)(x), size=(SIDE, SIDE), mode="bilinear")
        big[::2, 2] = -torch.inf
        task.targets.make(given, x, logits)
        torch.testing.assert_close(task.targets.weak_view(given, x, logits), big.softmax(1))
        assert task.targets.sight is None


# -- views -------------------------------------------------------------------------------------------------------------


def test_views_are_functions_of_seed_step_part_number_and_place():
    def numbers(draw, number, count=COUNT):
        view = draw_view(draw, number, count, (SIDE, SIDE), 0.5)
        return np.concatenate([np.asarray(values, float).ravel() for values in vars(view).values()])

    first = numbers((1, 2, 0), 0)
    assert (first == numbers((1, 2, 0), 0)).all()
    for draw, number in (((2, 2, 0), 0), ((1, 3, 0), 0), ((1, 2, 1), 0), ((1, 2, 0), 1)):
        assert (first != numbers(draw, number)).any()


def test_views_are_drawn_as_published():
    view = draw_view((0, 0, 0), 0, 4000, (100, 120), 0.5)
    jitter = (view.brightness != 1).mean()
    for share, expected in ((jitter, 0.8), (view.grey.mean(), 0.2), ((view.sigma > 0).mean(), 0.5)):
        assert share == pytest.approx(expected, abs=0.03)
    for factors in (view.brightness, view.contrast, view.saturation):
        assert 0.5 <= factors.min() < 0.51 and 1.49 < factors.max() <= 1.5
    assert -0.25 <= view.hue.min() < -0.24 and 0.24 < view.hue.max() <= 0.25
    assert view.sigma[view.sigma > 0].min() >= 0.1 and view.sigma.max() <= 2
    mixed = view.box[view.box.any(1)]
    assert len(mixed) / 4000 == pytest.approx(0.5, abs=0.03)
    height, width = mixed[:, 1] - mixed[:, 0], mixed[:, 3] - mixed[:, 2]
    assert (height * width).min() / 12000 > 0.01 and (height * width).max() / 12000 < 0.42
    assert (mixed[:, 0] >= 0).all() and (mixed[:, 1] <= 100).all() and (mixed[:, 3] <= 120).all()
    assert (view.partner != np.arange(4000)).all()
    assert not draw_view((0, 0, 0), 0, 1, (9, 9), 1.0).box.any()  # one crop has no other


def test_draws_that_leave_all_as_it_is_leave_the_bytes():
    view = draw_view((0, 0, 0), 0, COUNT, (SIDE, SIDE), 0.0)
    ones, nothing = np.ones(COUNT), np.zeros(COUNT)
    plain_view = view.__class__(ones, ones, ones, nothing, nothing.astype(bool), nothing, view.box, view.partner)
    given = batch()
    inside = torch.ones(COUNT, SIDE, SIDE, dtype=torch.bool)
    assert torch.equal(strong_colours(given["image"], inside, plain_view), given["image"])


def test_views_have_their_bytes_in_bfloat16_too():
    given, inside = batch(), torch.ones(COUNT, SIDE, SIDE, dtype=torch.bool)
    view = draw_view((0, 0, 0), 0, COUNT, (SIDE, SIDE), 0.0)
    assert view.sigma.any() and view.hue.any()
    expected = strong_colours(given["image"], inside, view)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(strong_colours(given["image"], inside, view), expected)


def test_half_of_the_channels_count_twice():
    term = Consistency(ConsistencyConfig(), (1000, 2000))
    factors = term.factors(batch())
    assert [tuple(one.shape) for one in factors] == [(COUNT, 1000), (COUNT, 2000)]
    assert set(factors[0].flatten().tolist()) == {0.0, 2.0}
    assert factors[1].mean().item() == pytest.approx(1.0, abs=0.05)
    assert Consistency(ConsistencyConfig(features=False), (6,)).factors(batch()) is None


# -- training ----------------------------------------------------------------------------------------------------------


def train(path, config, crash_at=None):
    torch.set_num_threads(1)
    task = SegmentationTask(Tiny(), config, lambda model: {})
    task.val_interval = 0

    def batches(start):
        for step in range(start, config.iters):
            if step == crash_at:
                raise InterruptedError
            yield [batch(step, part) for part in range(config.accumulate)]

    config = config.model_copy(update={"precision": "fp32", "log_interval": 1, "checkpoint_interval": 4})
    with open_run(path, "train", load_preset("toy"), "x", Inputs(dataset="d", classes=(), colors=())) as run:
        for _ in fit(task, batches, config, run, Context(torch.device("cpu"), path), seed=1):
            pass
        run.finish()
    return task


@pytest.mark.parametrize("teacher", [[], ["teacher={ start = 0.5, decay = 0.5, threshold = 0.4 }"]])
def test_a_training_that_crashed_ends_with_the_bits_of_an_unbroken_one(tmp_path, teacher):
    config = configured("consistency.threshold=0.4", *teacher).model_copy(update={"accumulate": 2, "batch": 2 * COUNT})
    whole = train(tmp_path / "whole", config)
    with pytest.raises(InterruptedError):
        train(tmp_path / "broken", config, 7)
    resumed = train(tmp_path / "broken", config)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[key]), key
    losses = [[row["loss_consistency"] for row in read_metrics(tmp_path / name)] for name in ("whole", "broken")]
    assert losses[0] == losses[1] and min(losses[0]) > 0


def test_off_is_what_it_was_to_the_bit(tmp_path):
    config = configured()
    assert config.noise.consistency is None and wanted(config) == frozenset()
    assert configured("consistency={}", "consistency=false") == config
    off, task = (SegmentationTask(Tiny(), one, None) for one in (config, configured("consistency={}")))
    given = batch()
    torch.manual_seed(5)
    before = off.losses({key: given[key] for key in ("image", "mask")})  # nothing else is asked for
    torch.manual_seed(5)
    on = task.losses(given)
    assert set(before) == {"decode", "aux"} and set(on) == {*before, "consistency"}
    assert all(torch.equal(before[key], on[key]) for key in before)  # nor is another term another one


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["noise.consistency.threshold=1.1"], "less than or equal to 1"),
        (["noise.consistency.threshold=-0.1"], "greater than or equal to 0"),
        (["noise.consistency.views=3"], "less than or equal to 2"),
        (["noise.consistency.views=0"], "greater than or equal to 1"),
        (["noise.consistency.cutmix=2.0"], "less than or equal to 1"),
        (["noise.consistency.weight=0.0"], "greater than 0"),
        (["noise.consistency={}", "supervision=full"], "true masks vouch for every pixel"),
        (["noise.consistncy={}"], "unknown key train.noise.consistncy"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        load_preset("toy", [f"train.{setting}" for setting in settings])
