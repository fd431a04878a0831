import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rules

from wsss_cli.config.train import AugmentConfig
from wsss_cli.data import transforms
from wsss_cli.data.transforms import Distortion
from wsss_cli.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "transforms.json").read_text())


@pytest.fixture(scope="module")
def arrays():
    with np.load(GOLDEN / "transforms.npz") as file:
        return dict(file)


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Replay:
    """A generator that gives the recorded numbers and checks the ranges that are asked for."""

    def __init__(self, integers=(), uniform=()):
        self.drawn, self.uniform = list(integers), list(uniform)

    def integers(self, low, high):
        bounds, value = self.drawn.pop(0)
        assert [low, high] == bounds
        return value

    def random(self):
        return self.uniform.pop(0)


# -- resize ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES["resize"], ids=lambda case: str(case["seed"]))
def test_resize_gives_the_reference_bytes(case):
    h, w = case["in_hw"]
    image, mask = rules.image(case["seed"], h, w), rules.label(case["seed"], h, w)
    ratio_one = Replay(uniform=[1 / 3])  # 1/3 of the way from 0.5 to 2
    image, mask = transforms.random_resize(image, mask, ratio_one, AugmentConfig())
    assert list(mask.shape) == case["out_hw"]
    assert sha(image) == case["img_sha"]
    assert sha(mask) == case["seg_sha"]


def test_small_resize_gives_the_reference_bytes(arrays):
    image, mask = arrays["resize_in_img"], arrays["resize_in_seg"]
    h, w = arrays["resize_up_seg"].shape
    augment = AugmentConfig(scale_min=1.0, scale_max=1.0, base_long=w, base_short=h)
    image, mask = transforms.random_resize(image, mask, Replay(uniform=[0.0]), augment)
    np.testing.assert_array_equal(image, arrays["resize_up_img"])
    np.testing.assert_array_equal(mask, arrays["resize_up_seg"])


@pytest.mark.parametrize(
    ("h", "w", "long", "short", "expected"),
    [
        (375, 500, 2048, 512, (512, 683)),  # short side bounds: 512/375
        (100, 1000, 2048, 512, (205, 2048)),  # long side bounds: 2.048
        (500, 375, 512, 2048, (683, 512)),  # the order of the bounds does not matter
        (1, 4000, 400, 100, (1, 400)),  # never below one pixel
    ],
)
def test_keep_ratio_size(h, w, long, short, expected):
    assert transforms.keep_ratio_size(h, w, long, short) == expected


def test_resize_ratio_covers_its_range():
    image, mask = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
    augment = AugmentConfig(base_long=400, base_short=40)
    for draw, expected in ((0.0, (20, 25)), (0.5, (50, 63)), (0.9999999, (79, 99))):
        _, resized = transforms.random_resize(image, mask, Replay(uniform=[draw]), augment)
        assert resized.shape == expected


# -- crop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES["random_crop"], ids=lambda case: str(case["np_seed"]))
def test_crop_gives_the_reference_bytes(case):
    h, w = case["in_hw"]
    seed = case["np_seed"] - 80  # not in the file; the seed whose image and mask both have the recorded hashes
    image, mask = rules.image(seed, h, w), rules.label(seed, h, w, case["label_block"])
    rng = Replay(integers=case["draws"])
    image, mask = transforms.random_crop(image, mask, rng, 512, 0.75)
    assert list(mask.shape) == case["out_hw"]
    assert rng.drawn == []
    assert sha(mask) == case["seg_sha"]
    assert sha(image) == case["img_sha"]


class Counting:
    def __init__(self, generator):
        self.generator, self.calls = generator, 0

    def integers(self, low, high):
        self.calls += 1
        return self.generator.integers(low, high)


def crops_drawn(mask, cat_max_ratio=0.75, size=4):
    rng = Counting(np.random.default_rng(0))
    transforms.random_crop(np.zeros((*mask.shape, 3), np.uint8), mask, rng, size, cat_max_ratio)
    return rng.calls // 2


def test_eleven_crops_are_drawn_when_none_is_mixed():
    assert crops_drawn(np.zeros((16, 16), np.uint8)) == 11
    assert crops_drawn(np.full((16, 16), 255, np.uint8)) == 11


def test_the_share_counts_pixels_that_are_not_ignored():
    # 4x4 windows of this mask hold 8 ignored pixels, 6 of class 1 and 2 of class 2: a share of exactly 0.75
    mask = np.tile(np.array([255, 255, 1, 1], np.uint8), (4, 1))
    mask[0, 2:] = 2
    assert crops_drawn(mask, 0.75) == 11
    assert crops_drawn(mask, 0.76) == 1
    mask[1, 2] = 2  # 5 to 3
    assert crops_drawn(mask, 0.75) == 1


def test_one_crop_is_drawn_when_nothing_is_to_be_checked():
    assert crops_drawn(np.zeros((16, 16), np.uint8), 1.0) == 1


def test_crop_of_a_small_image_is_the_image():
    image, mask = np.arange(36, dtype=np.uint8).reshape(3, 4, 3), np.arange(12, dtype=np.uint8).reshape(3, 4)
    cut, cut_mask = transforms.random_crop(image, mask, np.random.default_rng(0), 8, 0.75)
    np.testing.assert_array_equal(cut, image)
    np.testing.assert_array_equal(cut_mask, mask)


# -- flip, colour, padding ---------------------------------------------------------------------------------------------


def test_flip_mirrors_image_and_mask():
    image, mask = np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.array([[7, 8]], np.uint8)
    image, mask = transforms.flip(image, mask)
    assert image.tolist() == [[[3, 4, 5], [0, 1, 2]]]
    assert mask.tolist() == [[8, 7]]


def distortion_of(draws):
    """The recorded random calls, in the order in which the reference makes them, as our parameters."""
    calls = iter(draws)

    def value_if_heads():
        return next(calls)[2] if next(calls)[2] else None

    brightness = value_if_heads()
    first = next(calls)[2] == 1
    contrast = value_if_heads() if first else None
    saturation, hue = value_if_heads(), value_if_heads()
    if not first:
        contrast = value_if_heads()
    assert list(calls) == []
    return Distortion(brightness, contrast, not first, saturation, hue)


@pytest.mark.parametrize("index", range(len(CASES["pmd"])))
def test_colour_distortion_gives_the_reference_bytes(index, arrays):
    draws = distortion_of(CASES["pmd"][index]["draws"])
    rgb = np.ascontiguousarray(arrays["pmd_in"][:, :, ::-1])  # the reference works in BGR
    before = rgb.copy()
    distorted = transforms.photometric(rgb, draws)
    np.testing.assert_array_equal(distorted[:, :, ::-1], arrays[f"pmd_out_{index}"])
    np.testing.assert_array_equal(rgb, before)


def test_brightness_and_contrast_truncate_between_the_steps():
    grey = np.full((1, 1, 3), 100, np.uint8)
    # 100 + 0.9 -> 100; 100 * 1.019 -> 101 (without the truncation 102)
    assert transforms.photometric(grey, Distortion(brightness=0.9, contrast=1.019)).tolist() == [[[101, 101, 101]]]
    assert transforms.photometric(grey, Distortion(brightness=-150.0)).tolist() == [[[0, 0, 0]]]
    assert transforms.photometric(grey, Distortion(contrast=3.0)).tolist() == [[[255, 255, 255]]]
    assert transforms.photometric(grey, Distortion()) is grey


def test_hue_turns_red_to_blue_and_saturation_0_to_grey():
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert transforms.photometric(red, Distortion(hue=-60)).tolist() == [[[0, 0, 255]]]
    assert transforms.photometric(red, Distortion(saturation=0.0)).tolist() == [[[255, 255, 255]]]


def test_drawn_distortions_have_the_stated_distribution():
    rng = np.random.default_rng(3)
    drawn = [transforms.draw_distortion(rng) for _ in range(2000)]
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18, 17)}
    for name, (low, high) in ranges.items():
        values = [getattr(d, name) for d in drawn if getattr(d, name) is not None]
        assert 900 < len(values) < 1100
        assert low <= min(values) < low + 0.05 * (high - low) and high - 0.05 * (high - low) < max(values) <= high
    assert 900 < sum(d.contrast_last for d in drawn) < 1100


def test_padding_is_black_and_ignored_at_the_right_and_the_bottom():
    image, mask = np.full((2, 3, 3), 9, np.uint8), np.full((2, 3), 5, np.uint8)
    image, mask = transforms.pad_to(image, mask, 4)
    assert mask.tolist() == [[5, 5, 5, 255], [5, 5, 5, 255], [255] * 4, [255] * 4]
    assert image[..., 1].tolist() == [[9, 9, 9, 0], [9, 9, 9, 0], [0] * 4, [0] * 4]
    again, _ = transforms.pad_to(image, mask, 4)
    assert again is image


# -- whole samples -----------------------------------------------------------------------------------------------------


def photograph(h=60, w=80):
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (h, w, 3), np.uint8), rng.integers(0, 3, (h, w), np.uint8)


def test_sample_is_a_function_of_the_seed():
    image, mask = photograph()
    augment = AugmentConfig(base_long=160, base_short=48)
    first, second, other = (
        transforms.train_sample(image, mask, np.random.default_rng(seed), augment, 64) for seed in (1, 1, 2)
    )
    assert first[0].shape == (64, 64, 3) and first[1].shape == (64, 64)
    assert first[0].dtype == first[1].dtype == np.uint8 and first[0].flags.c_contiguous
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).any()


def test_image_and_mask_stay_together():
    _, mask = photograph()
    image = np.repeat(mask[:, :, None] * 60, 3, axis=2)  # a picture of its own mask
    augment = AugmentConfig(scale_min=1.0, scale_max=1.0, base_long=80, base_short=60, photometric=False)
    for seed in range(8):
        cut, cut_mask, *_ = transforms.train_sample(image, mask, np.random.default_rng(seed), augment, 32)
        np.testing.assert_array_equal(cut[..., 0], cut_mask * 60)


def test_mask_of_another_size_is_refused():
    image, mask = photograph()
    with pytest.raises(DataError, match="80x60, its mask 79x60"):
        transforms.train_sample(image, mask[:, :79], np.random.default_rng(0), AugmentConfig(), 32)


def test_the_confidence_goes_where_the_mask_goes():
    _, mask = photograph()
    image, confidence = np.repeat(mask[:, :, None] * 60, 3, axis=2), mask * 60 + 7
    augment = AugmentConfig(scale_min=1.0, scale_max=1.0, base_long=80, base_short=60, photometric=False)
    for seed in range(8):  # mirrored and not
        sample = transforms.train_sample(image, mask, np.random.default_rng(seed), augment, 70, confidence)
        assert sample.size == (60, 70)
        inside = sample.confidence[:60]
        np.testing.assert_array_equal(inside, sample.mask[:60] * 60 + 7)
        assert (sample.confidence[60:] == 0).all() and (sample.mask[60:] == 255).all()
    assert sample.confidence.dtype == np.uint8 and sample.confidence.flags.c_contiguous


def test_the_confidence_is_resized_bilinearly():
    image, mask = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), np.uint8)
    confidence = np.array([[0, 200]], np.uint8)
    augment = AugmentConfig(scale_min=1.0, scale_max=1.0, base_long=4, base_short=2, flip=0.0, photometric=False)
    sample = transforms.train_sample(image, mask, np.random.default_rng(0), augment, 4, confidence)
    assert sample.confidence.tolist() == [[0, 50, 150, 200], [0, 50, 150, 200], [0] * 4, [0] * 4]
    assert sample.size == (2, 4)


def test_the_confidence_changes_neither_crop_nor_colours():
    image, mask = photograph()
    augment = AugmentConfig(base_long=160, base_short=48)
    for seed in range(4):
        plain = transforms.train_sample(image, mask, np.random.default_rng(seed), augment, 40)
        more = transforms.train_sample(image, mask, np.random.default_rng(seed), augment, 40, mask)
        assert plain.confidence is None and plain.size == more.size
        np.testing.assert_array_equal(plain.mask, more.mask)
        np.testing.assert_array_equal(plain.image, more.image)


def test_confidence_of_another_size_is_refused():
    image, mask = photograph()
    with pytest.raises(DataError, match="80x60, its confidence map 79x60"):
        transforms.train_sample(image, mask, np.random.default_rng(0), AugmentConfig(), 32, mask[:, :79])


def test_classifier_sample_of_a_large_image_is_a_window_of_it():
    image, _ = photograph(40, 40)
    seen = set()
    for seed in range(20):
        sample = transforms.classifier_sample(image, np.random.default_rng(seed), 20, 2.0, 2.0)
        windows = [
            (y, x, mirrored)
            for mirrored in (False, True)
            for y in range(21)
            for x in range(21)
            if np.array_equal(sample, image[y : y + 20, x : x + 20][:, :: -1 if mirrored else 1])
        ]
        assert len(windows) == 1
        seen.add(windows[0])
    assert len(seen) > 15 and {mirrored for *_, mirrored in seen} == {False, True}


def test_classifier_sample_of_a_small_image_lies_somewhere_in_the_frame():
    image = np.full((10, 20, 3), 200, np.uint8)
    corners = set()
    for seed in range(20):
        sample = transforms.classifier_sample(image, np.random.default_rng(seed), 40, 0.5, 0.5)
        inside = (sample == 200).all(2)
        assert inside.sum() == 200
        assert (sample[~inside] == (124, 116, 104)).all()
        ys, xs = np.nonzero(inside)
        assert (ys.max() - ys.min(), xs.max() - xs.min()) == (9, 19)
        corners.add((int(ys.min()), int(xs.min())))
    assert len(corners) > 10


def test_classifier_sample_size_is_drawn_between_the_bounds():
    image = np.full((50, 100, 3), 200, np.uint8)
    sides = []
    for seed in range(100):
        sample = transforms.classifier_sample(image, np.random.default_rng(seed), 64, 0.5, 1.0)
        sides.append(int((sample == 200).all(2).any(0).sum()))
    assert 32 <= min(sides) < 35 and 61 < max(sides) <= 64


def test_an_affinity_sample_is_a_classifier_sample_with_its_label_on_the_grid():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    label = np.where(np.arange(60) < 30, 3, 0).astype(np.uint8)[None].repeat(40, 0)
    for seed in range(8):
        picture, target = transforms.affinity_sample(image, label, np.random.default_rng(seed), 32, 0.5, 1.5, 4)
        expected = transforms.classifier_sample(image, np.random.default_rng(seed), 32, 0.5, 1.5)
        assert (picture == expected).all()
        assert (target.shape, target.dtype) == ((8, 8), np.uint8)
        padded = (picture == transforms.MEAN_COLOUR).all(-1)[2::4, 2::4]
        assert (target[padded] == 255).all()
        assert set(np.unique(target[~padded])) <= {0, 3}
