"""The dense CRF's own lattice beside pydensecrf2, and what happens where it cannot be built."""

import shutil
import subprocess

import numpy as np
import pytest

from wsss_cli.config.refine import CRF_SETS
from wsss_cli.crf import dense_crf, lattice
from wsss_cli.errors import Preempted

compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """Nothing has been built or tried yet; what is said."""
    said = []
    monkeypatch.setattr(lattice, "_library", [])
    monkeypatch.setattr(lattice, "say", said.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return said


def photograph(height, width, seed=0):
    """Smooth regions with noise, uint8 [height, width, 3]."""
    numbers = np.random.default_rng(seed)
    coarse = numbers.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return (coarse + numbers.normal(0, 3, coarse.shape)).clip(0, 255).astype(np.uint8)


def energies(labellings, labels, height, width):
    numbers = np.random.default_rng(labels)
    coarse = numbers.uniform(0, 3, (labellings, labels, height // 5 + 1, width // 5 + 1))
    return coarse.repeat(5, 2).repeat(5, 3)[..., :height, :width].astype(np.float32)


@compiler
@pytest.mark.parametrize("parameters", ["irn", "psa", "deeplab", "toco"])
@pytest.mark.parametrize(
    ("labellings", "labels", "height", "width"),
    [(1, 2, 40, 57), (2, 2, 33, 31), (2, 3, 17, 64), (1, 21, 24, 40), (3, 40, 10, 16), (1, 3, 1, 1), (1, 4, 1, 90)],
)
def test_labels_are_those_of_pydensecrf2(parameters, labellings, labels, height, width):
    assert lattice.usable()
    image, unary = photograph(height, width), energies(labellings, labels, height, width)
    values = CRF_SETS[parameters].model_dump()
    ours = dense_crf(image, unary, **values, backend="lattice")
    theirs = dense_crf(image, unary, **values, backend="pydensecrf2")
    assert ours.dtype == np.float32 and ours.shape == unary.shape
    np.testing.assert_allclose(ours.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.999


@compiler
@pytest.mark.parametrize("without", [("gauss_compat",), ("bilateral_compat",), ("gauss_compat", "bilateral_compat")])
def test_a_kernel_without_weight_is_left_out(without):
    image, unary = photograph(20, 30), energies(1, 3, 20, 30)[0]
    values = CRF_SETS["irn"].model_dump() | dict.fromkeys(without, 0.0)
    ours, theirs = (dense_crf(image, unary, **values, backend=name) for name in ("lattice", "pydensecrf2"))
    np.testing.assert_allclose(ours, theirs, atol=5e-4)


@compiler
def test_what_it_cannot_take_goes_to_pydensecrf2():
    image, unary = photograph(8, 9), energies(1, 140, 8, 9)
    values = CRF_SETS["irn"].model_dump()
    assert lattice.mean_field(image, unary, 10, **{k: v for k, v in values.items() if k != "iterations"}) is None
    ours, theirs = (dense_crf(image, unary, **values, backend=name) for name in ("lattice", "pydensecrf2"))
    np.testing.assert_array_equal(ours, theirs)
    far = values | {"bilateral_srgb": 0.01}  # colours thousands of standard deviations apart
    ours, theirs = (dense_crf(image, unary[:, :3], **far, backend=name) for name in ("lattice", "pydensecrf2"))
    np.testing.assert_array_equal(ours, theirs)


@compiler
def test_it_is_built_once_and_opened_from_the_cache(afresh, monkeypatch, tmp_path):
    assert lattice.usable()
    (built,) = (tmp_path / "cache" / "wsss").iterdir()
    monkeypatch.setattr(lattice, "_library", [])
    monkeypatch.setattr(subprocess, "run", lambda *command, **more: pytest.fail("built again"))
    assert lattice.usable() and list(built.parent.iterdir()) == [built] and afresh == []


@compiler
def test_a_cache_that_cannot_be_written_to_is_passed_by(afresh, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert lattice.usable() and afresh == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no-such-compiler", "$CC is 'no-such-compiler', and no such program is here"),
        ("no-such-ccache cc", "$CC is 'no-such-ccache cc', and no such program is here"),
        ("'cc", "no such program is here"),
        ("false", "fails: no word"),
        ("true", "has written nothing"),
    ],
)
def test_without_a_compiler_pydensecrf2_takes_its_place(afresh, monkeypatch, name, reason):
    monkeypatch.setenv("CC", name)
    image, unary = photograph(12, 16), energies(2, 3, 12, 16)
    values = CRF_SETS["irn"].model_dump()
    ours, theirs = (dense_crf(image, unary, **values, backend=each) for each in ("lattice", "pydensecrf2"))
    np.testing.assert_array_equal(ours, theirs)
    dense_crf(image, unary, **values)
    assert len(afresh) == 1 and reason in afresh[0]


def test_without_any_compiler_that_is_said(afresh, monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not lattice.usable()
    assert "there is no C compiler (cc, gcc or clang)" in afresh[0]


@compiler
def test_a_compiler_is_found_by_its_own_name_and_with_arguments(afresh, monkeypatch, tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "gcc").symlink_to(shutil.which("cc"))
    monkeypatch.setenv("CC", "env cc")
    assert lattice.usable() and afresh == []
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "a b"))
    assert lattice._compiler() == [str(tmp_path / "a b" / "gcc")]
    monkeypatch.setenv("CC", str(tmp_path / "a b" / "gcc"))
    assert lattice._compiler() == [str(tmp_path / "a b" / "gcc")]


@compiler
@pytest.mark.parametrize("kept", [0, 3000])
def test_a_damaged_library_of_the_cache_is_built_anew(afresh, monkeypatch, tmp_path, kept):
    assert lattice.usable()
    (built,) = (tmp_path / "cache" / "wsss").iterdir()
    whole = built.read_bytes()
    built.unlink()  # a new file: the one that is open stays as it is
    built.write_bytes(whole[:kept])
    monkeypatch.setattr(lattice, "_library", [])
    assert lattice.usable() and afresh == []
    assert all(file.stem.endswith(lattice._content(file)) for file in built.parent.iterdir())


@compiler
def test_what_is_another_library_is_not_taken(afresh, monkeypatch, tmp_path):
    (tmp_path / "other.c").write_text("int other(void) { return 1; }")
    monkeypatch.setattr(lattice, "SOURCE", tmp_path / "other.c")
    assert not lattice.usable()
    assert "is another library" in afresh[0] and not (tmp_path / "cache").exists()


@compiler
def test_results_that_differ_are_not_used(afresh, monkeypatch):
    monkeypatch.setattr(lattice, "LIMIT", -1.0)
    assert not lattice.usable()
    assert "its results differ by" in afresh[0]


@compiler
def test_a_stop_ends_it_between_two_iterations(monkeypatch):
    looks = []

    def check():
        looks.append(1)
        if len(looks) == 3:
            raise Preempted("stopped")

    assert lattice.usable()
    monkeypatch.setattr(lattice, "check_stop", check)
    with pytest.raises(Preempted):
        dense_crf(photograph(12, 16), energies(1, 2, 12, 16), **CRF_SETS["irn"].model_dump(), backend="lattice")
    assert len(looks) == 3
