from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss_cli.cam.store import LIMIT, read_cam, upsample, write_cam
from wsss_cli.errors import DataError


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_what_is_stored_comes_back(tmp_path_factory, count, height, width, seed):
    path = tmp_path_factory.mktemp("cam") / "a.npz"
    cam = np.random.default_rng(seed).random((count, height, width), np.float32)
    classes = tuple(range(3, 3 + count))
    written = write_cam(path, cam, classes, (375, 500))
    found, found_classes, size = read_cam(path)
    assert written == path.stat().st_size
    assert (found_classes, size) == (classes, (375, 500))
    assert found.dtype == np.float32
    assert found.shape == cam.shape
    assert np.abs(found - cam).max(initial=0) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(tmp_path, wrong):
    with pytest.raises(DataError, match=r"the CAMs for a\.npz are not finite"):
        write_cam(tmp_path / "a.npz", np.array([[[0.5, wrong]]]), (1,), (1, 2))
    assert not (tmp_path / "a.npz").exists()


def test_scores_out_of_range_are_cut(tmp_path):
    write_cam(tmp_path / "a.npz", np.array([[[-0.5, 1.5]]]), (1,), (1, 2))
    assert read_cam(tmp_path / "a.npz")[0].tolist() == [[[0.0, 1.0]]]


def test_twenty_maps_of_noise_take_at_most_60_kib(tmp_path):
    cam = np.random.default_rng(0).random((20, 94, 125), np.float32)
    written = write_cam(tmp_path / "a.npz", cam, tuple(range(1, 21)), (375, 500))
    assert written <= LIMIT == 60 * 1024
    found, classes, size = read_cam(tmp_path / "a.npz")
    assert (len(classes), size) == (20, (375, 500))
    assert found.shape[0] == 20
    assert found.shape[1] >= 20  # halved as often as needed, no more
    np.testing.assert_allclose(found.mean((1, 2)), cam.mean((1, 2)), atol=0.02)


def test_an_ordinary_image_keeps_its_resolution(tmp_path):
    y, x = np.mgrid[:94, :125]
    cam = np.exp(-(((x - 60) / 30.0) ** 2) - ((y - 40) / 20.0) ** 2)[None]
    assert write_cam(tmp_path / "a.npz", cam, (7,), (375, 500)) < 10 * 1024
    assert read_cam(tmp_path / "a.npz")[0].shape == (1, 94, 125)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "other"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "a.npz"
    write_cam(path, np.random.default_rng(0).random((2, 30, 30)), (1, 2), (120, 120))
    data = path.read_bytes()
    if damage == "pickle":
        np.savez(path, cam=np.array([{}], dtype=object), classes=np.zeros(1), size=np.zeros(2))
    elif damage == "other":
        np.savez(path, something=np.zeros(3))
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"not a zip file at all"}[damage])
    with pytest.raises(DataError, match=r"a\.npz is not a CAM file") as caught:
        read_cam(path)
    assert "wsss cam" in caught.value.hint and "pickle" not in caught.value.message  # NumPy's advice is unsafe


def test_scores_of_another_program_are_said_by_what_they_hold(tmp_path):
    np.savez(tmp_path / "a.npz", keys=np.zeros(1), cam=np.zeros((1, 3, 3)), high_res=np.zeros((1, 9, 9)))
    with pytest.raises(DataError, match=r"a\.npz is not a CAM file: it holds keys, cam, high_res") as caught:
        read_cam(tmp_path / "a.npz")
    assert "classes [C] from 1 on" in caught.value.hint and "remove" not in caught.value.hint


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    write_cam(path, np.random.default_rng(0).random((2, 30, 30)), (1, 2), (120, 120))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="not a CAM file"):
        read_cam(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.npz is missing"):
        read_cam(tmp_path / "nothing.npz")


def test_upsample_has_half_pixel_centres():
    row = upsample(np.array([[[0.0, 1.0]]], np.float32), (2, 4))
    assert row.tolist() == [[[0.0, 0.25, 0.75, 1.0]] * 2]


def test_upsample_of_no_maps():
    assert upsample(np.zeros((0, 3, 3), np.float32), (5, 7)).shape == (0, 5, 7)


def _npz(path: Path, cam: np.ndarray, classes: tuple[int, ...] = (1,), size: tuple[int, ...] = (1, 2)) -> Path:
    np.savez(path, cam=cam, classes=np.array(classes, np.int32), size=np.array(size, np.int32))
    return path


def test_floats_from_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    scores = np.array([[[0.0, 0.9]]])
    for dtype in (np.float16, np.float32, np.float64):
        cam, classes, size = read_cam(_npz(tmp_path / "a.npz", scores.astype(dtype)))
        assert cam.dtype == np.float32
        assert cam.tolist() == [[[0.0, pytest.approx(0.9, abs=1e-3)]]]
        assert (classes, size) == ((1,), (1, 2))


@pytest.mark.parametrize(
    ("cam", "classes", "size", "message"),
    [
        (np.array([[[0.0, 230.0]]]), (1,), (1, 2), "holds scores from 0 to 230"),
        (np.array([[[-0.1, 1.0]]]), (1,), (1, 2), "holds scores from -0.1 to 1"),
        (np.array([[[np.nan, 1.0]]]), (1,), (1, 2), "holds scores from nan"),
        (np.array([[[0, 230]]]), (1,), (1, 2), "holds scores of type int64"),
        (np.array([[0, 230]], np.uint8), (1,), (1, 2), "do not fit"),
        (np.array([[[0, 230]]], np.uint8), (1, 2), (1, 2), "do not fit"),
        (np.array([[[0, 230]]], np.uint8), (1,), (1, 2, 3), "do not fit"),
    ],
)
def test_other_scores_are_refused(
    tmp_path: Path, cam: np.ndarray, classes: tuple[int, ...], size: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        read_cam(_npz(tmp_path / "a.npz", cam, classes, size))


@pytest.mark.parametrize(("low", "first"), [(0.0, "divide"), (-1.0, "set what is below 0"), (np.nan, "set what is")])
def test_the_hint_on_scores_out_of_range_helps(tmp_path: Path, low: float, first: str) -> None:
    scores = np.array([[[low, 2.0]]])
    with pytest.raises(DataError) as error:
        read_cam(_npz(tmp_path / "a.npz", scores))
    assert error.value.hint is not None
    assert error.value.hint.startswith(first)
    mended = np.where(scores > 0, scores, 0)
    assert read_cam(_npz(tmp_path / "a.npz", mended / mended.max()))[0].tolist() == [[[0.0, 1.0]]]
