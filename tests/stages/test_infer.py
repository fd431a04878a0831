"""`run_infer` by windows: the same code as `eval --mode slide`, and the way out where memory is short."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_cli.config.load import load_preset
from wsss_cli.data.images import image_size
from wsss_cli.data.masks import read_mask
from wsss_cli.engine import work as work_module
from wsss_cli.engine.context import Context
from wsss_cli.errors import ResourceError, UsageError
from wsss_cli.inference import predict as predict_module
from wsss_cli.inference import tiles as tiles_module
from wsss_cli.inference.journal import Journal
from wsss_cli.inference.network import Network
from wsss_cli.inference.predict import predict
from wsss_cli.stages import infer as infer_stage
from wsss_cli.stages.infer import _for_predictions, run_infer
from wsss_cli.stages.photographs import find_images

WINDOW = 40


class Sees(nn.Module):
    """A network whose logits know the mean of what is seen; it has memory for a window and no more where asked."""

    def __init__(self, most=10**9):
        super().__init__()
        self.most = most
        self.weight = nn.Parameter(torch.zeros(1))

    @property
    def backbone(self):
        return self

    def normalise(self, x):
        return x.float() / 64 - 2

    def forward(self, x):
        if x.shape[2] * x.shape[3] > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return torch.cat([x, -x], 1) + 4 * x.mean((2, 3), keepdim=True).roll(1, 1).repeat(1, 2, 1, 1)


@pytest.fixture
def network():
    preset = load_preset("toy", [f"eval.window={WINDOW}", "eval.stride=20", "eval.scales=[1.0,1.5]"])
    return Network(Sees(), preset, tuple("abcdef"), ((0, 0, 0),) * 6, 3, "data/toy", "run 1")


def photograph(folder, name, height, width):
    draw = np.random.default_rng(height).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    path = folder / f"{name}.png"
    Image.fromarray(np.kron(draw, np.ones((10, 10, 1), np.uint8))).save(path)
    return path


@pytest.fixture
def infer(tmp_path):
    def infer(network, photo, mode, ms_flip=False):
        ctx = Context(torch.device("cpu"), tmp_path)
        made = run_infer(network, [photo], tmp_path / "out", ctx, ms_flip=ms_flip, beside=(), mode=mode)
        return read_mask(tmp_path / "out/masks" / photo.name), made["images"]

    return infer


def test_windows_are_those_of_eval_and_make_no_difference_where_one_holds_the_image(network, infer, tmp_path):
    small, large = photograph(tmp_path, "small", 30, 40), photograph(tmp_path, "large", 70, 100)
    (whole, _), (slid, again) = infer(network, small, ""), infer(network, small, "slide")
    assert np.array_equal(slid, whole) and again == 1  # a setting: made anew, though it is the same
    (whole, _), (slid, _) = infer(network, large, "whole"), infer(network, large, "slide")
    assert (slid != whole).any()
    config = network.preset.eval.model_copy(update={"mode": "slide"})
    images = [np.asarray(Image.open(large))]
    theirs = predict(network.model, images, config, Context(torch.device("cpu"), tmp_path), "fp32")["single"][0]
    assert np.array_equal(slid, theirs)
    assert infer(network, large, "slide")[1] == 0  # kept
    assert infer(network, large, "")[1] == 1


@pytest.mark.parametrize("ms_flip", [False, True])
def test_where_memory_is_short_windows_are_named_and_help(network, infer, tmp_path, ms_flip):
    photo = photograph(tmp_path, "large", 70, 100)
    network.model.most = WINDOW * WINDOW
    with pytest.raises(ResourceError, match="out of memory with one image of 100x70") as caught:
        infer(network, photo, "", ms_flip)
    assert caught.value.hint == "make it need less: --tile 1024 or --mode slide" + (", no --ms-flip" if ms_flip else "")
    assert infer(network, photo, "slide", ms_flip)[0].shape == (70, 100)
    network.model.most = 100
    with pytest.raises(ResourceError) as caught:
        infer(network, photograph(tmp_path, "other", 70, 100), "slide")
    assert caught.value.hint == "make it need less: a smaller photograph"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with folders in it, one of them the masks of an earlier call, and a linked one."""
    monkeypatch.chdir(tmp_path)
    before = ("photos/out/masks/a.png", "photos/out/made.jsonl")
    for name in ("photos/a.jpg", "photos/trip/b.jpg", "photos/notes/c.txt", *before, "other/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "other")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("given", "images", "said"),
    [
        ("photos/*", ["photos/a.jpg"], "2 folders with images not searched: photos/link, photos/trip"),
        ("photos/[a-m]*", ["photos/a.jpg"], "1 folder with images not searched: photos/link"),
        ("photos/**/*.jpg", ["photos/a.jpg", "photos/trip/b.jpg"], "1 folder with images not searched: photos/link"),
        ("photos/*.jpg", ["photos/a.jpg"], ""),
        ("photos/trip/**", ["photos/trip/b.jpg"], ""),
    ],
)
def test_folders_that_infer_does_not_search_are_named(photos, given, images, said):
    heard = []
    paths = find_images([given], photos / "out", heard.append)
    assert list(paths) == images
    assert heard == (
        [f"{given}: {said}; give them too, or run this for each, with an --out of its own"] if said else []
    )


@pytest.mark.parametrize("given", ["photos/*.jpg", "photos/**/*.jpg", "./photos/*.jpg", "photos/trip/../*.jpg"])
def test_a_pattern_passes_hidden_files_over_unless_it_names_them(photos, given):
    for name in ("._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    shown = ["a.jpg", "b.jpg"] if "**" in given else ["a.jpg"]
    assert [Path(path).name for path in find_images([given], photos / "out", [].append)] == shown
    assert list(find_images(["photos/.*.jpg"], photos / "out", print)) == ["photos/._a.jpg"]
    hidden = ["photos/.ipynb_checkpoints/a-checkpoint.jpg"]
    assert list(find_images(["photos/.ipynb_checkpoints/*.jpg"], photos / "out", print)) == hidden


def test_a_photograph_that_is_named_twice_is_one_however_it_is_written(photos):
    given = ["photos", "photos/a.jpg", "./photos/trip/../a.jpg", str(photos / "a.jpg"), "photos/trip"]
    assert list(find_images(given, photos / "out", print)) == [
        f"photos/./{name}" for name in ("a.jpg", "link/d.jpg", "trip/b.jpg")
    ]
    assert list(find_images(given[1:], photos / "out", print)) == ["photos/a.jpg", "photos/trip/./b.jpg"]


@pytest.mark.parametrize("given", ["photos", "photos/*"])
def test_photographs_without_an_ending_are_counted(photos, given):
    heads = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"II*\0",
        b"BM6\0\0\0\0\0\0\0",
        b"BM a text",
        b"",
    )
    for number, content in enumerate(heads):
        (photos / f"IMG_{number}").write_bytes(content)
    (photos / ".IMG_8").write_bytes(heads[0])
    heard = []
    find_images([given], photos / "out", heard.append)
    assert heard[0] == f"{given}: passed over, as these endings are not read: 5 without an ending"


@pytest.mark.parametrize("given", ["photos", "photos/*", "[ph] x*?/*.*", "[ph] x*?"])
def test_photographs_whose_endings_are_not_read_are_counted(photos, given):
    if given.startswith("["):  # a folder that is there as it is written is no pattern
        photos = photos.rename(photos.parent / "[ph] x*?")
    for name in ("b.NEF", "c.nef", "d.jfif", "g.j2k", "h.nii.gz", "i.dcm", "e.mp4", "f.txt"):
        (photos / name).touch()
    heard = []
    names = {"a.jpg"} if "*/" in given or given.endswith(("/*", "*.*")) else {"a.jpg", "b.jpg", "d.jpg"}
    assert {Path(path).name for path in find_images([given], photos / "out", heard.append)} == names
    assert heard[0] == f"{given}: passed over, as these endings are not read: 1 .dcm, 1 .gz, 1 .j2k, 1 .jfif, 2 .nef"
    for name in ("a.jpg", "trip/b.jpg", "link/d.jpg"):
        (photos / name).unlink()
    with pytest.raises(UsageError, match=r"no image that is read, but 1 \.dcm, 1 \.gz, 1 \.j2k, 1 \.jfif, 2 \.nef"):
        find_images([given], photos / "out", heard.append)


def test_folders_within_a_folder_are_searched_and_masks_lie_as_photographs_do(network, photos, tmp_path):
    for name in ("a.jpg", "trip/a.jpg", "trip/b.jpg", "link/d.jpg", "before/masks/a.png", ".hidden/e.jpg"):
        (photos / name).parent.mkdir(exist_ok=True, parents=True)
        photograph(tmp_path, "drawn", 30, 40).rename(photos / name)
    (photos / "before" / "made.jsonl").touch()  # masks of another call
    paths = find_images(["photos"], photos / "out", print)
    assert list(paths) == ["photos/./a.jpg", "photos/./link/d.jpg", "photos/./trip/a.jpg", "photos/./trip/b.jpg"]
    ctx = Context(torch.device("cpu"), tmp_path)
    assert run_infer(network, paths, photos / "out", ctx, ms_flip=False)["images"] == 4
    assert run_infer(network, find_images(["photos"], photos / "out", print), photos / "out", ctx, ms_flip=False) == {
        "masks": str(photos / "out/masks"), "overlays": str(photos / "out/overlays"), "images": 0, "kept": 4, "lost": []
    }  # fmt: skip
    for kind in ("masks", "overlays"):
        folder = photos / "out" / kind
        written = {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
        assert written == {"a.png", "trip/a.png", "trip/b.png", "link/d.png"}
    assert list(find_images(["photos/trip"], photos / "out", print)) == ["photos/trip/./a.jpg", "photos/trip/./b.jpg"]


def test_masks_beside_their_photographs_are_no_photographs(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photograph(tmp_path, "a", 30, 40).rename("photos/a.jpg")
    ctx = Context(torch.device("cpu"), tmp_path)
    for images, there in ((1, 0), (0, 1)):
        paths = find_images(["photos"], Path("photos"), print)
        assert list(paths) == ["photos/./a.jpg"]
        done = run_infer(network, paths, Path("photos"), ctx, ms_flip=False)
        assert (done["images"], done["kept"]) == (images, there)
    assert list(find_images(["photos"], Path("elsewhere"), print)) == ["photos/./a.jpg"]


@pytest.mark.parametrize("given", ["data/masks", "data/masks/a.png", "data/masks/*.png", "data/**/*.png"])
def test_photographs_are_never_written_over_by_masks(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    Path("data/masks").mkdir(parents=True)
    Path("data/masks/a.png").touch()
    with pytest.raises(UsageError, match=r"^data/masks/a\.png lies where masks are written"):
        find_images([given], Path("data"), print)


@pytest.mark.parametrize("kind", ["masks", "overlays", "confidence"])
def test_a_file_that_nobody_predicted_is_not_written_over(network, tmp_path, kind):
    photo, ctx = photograph(tmp_path, "a", 30, 40), Context(torch.device("cpu"), tmp_path)
    drawn = tmp_path / "out" / kind / "a.png"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(UsageError, match=f"{kind}/a.png is there, and nothing says that it was predicted"):
        run_infer(network, [photo], tmp_path / "out", ctx, ms_flip=False)
    assert drawn.read_bytes() == b"drawn by hand"


def test_a_mask_written_just_before_a_kill_is_no_stranger(network, tmp_path, monkeypatch):
    photo, ctx = photograph(tmp_path, "a", 30, 40), Context(torch.device("cpu"), tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(Journal, "add", lambda *args, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_infer(network, [photo], tmp_path / "out", ctx, ms_flip=False)
    assert (tmp_path / "out/masks/a.png").is_file()
    assert run_infer(network, [photo], tmp_path / "out", ctx, ms_flip=False)["images"] == 1


def test_two_photographs_for_one_mask_are_refused(photos):
    (photos / "a.png").touch()
    with pytest.raises(UsageError, match="two images are named a; their masks would overwrite each other") as refused:
        find_images(["photos"], photos / "out", print)
    assert refused.value.message.endswith(".jpg, photos/a.png") and refused.value.hint.startswith("rename one, or run")


def test_of_a_photograph_and_the_file_beside_it_the_other_is_named(photos):
    """As a shell makes of photos/*: no renaming helps."""
    (photos / "a.xml").touch()
    photo = next(str(path) for path in photos.iterdir() if path.stem == "a" and path.suffix != ".xml")
    with pytest.raises(UsageError, match="two files are named a; their masks") as refused:
        find_images([str(photos / "a.xml"), photo], photos / "out", print)
    assert refused.value.hint.startswith(f"leave out {photos / 'a.xml'}, or give the folder itself")


def test_a_second_run_is_not_taken_for_a_folder_of_photographs(photos, tmp_path):
    """Its examples.jpg would be segmented."""
    (tmp_path / "run.json").touch()
    with pytest.raises(UsageError, match=f"{tmp_path} is a run, and photographs are named here"):
        find_images([str(tmp_path), "photos"], photos / "out", print)


def test_few_headers_are_read_before_the_first_photograph_is_segmented(network, tmp_path, monkeypatch):
    photos = [photograph(tmp_path, f"p{number}", 30 + 10 * (number % 2), 40) for number in range(7)]
    events = []
    monkeypatch.setattr(infer_stage, "SIZES_AHEAD", 2)
    monkeypatch.setattr(predict_module, "image_size", lambda path: events.append("header") or image_size(path))
    monkeypatch.setattr(tiles_module, "predict", lambda *args, **how: events.append("network") or predict(*args, **how))
    monkeypatch.setattr(work_module, "THREADS", 1)
    done = run_infer(network, photos, tmp_path / "out", Context(torch.device("cpu"), tmp_path), ms_flip=False)
    assert (done["images"], events.count("header"), events.count("network")) == (7, 7, 7)
    assert "network" in events[:5]


@pytest.mark.parametrize(("precision", "folds"), [("fp32", True), ("bf16", False)])
def test_batch_norms_are_folded_in_float32_alone(network, tmp_path, monkeypatch, precision, folds):
    monkeypatch.setattr("wsss_cli.stages.infer.folded", lambda model: "folded")
    train = network.preset.train.model_copy(update={"precision": precision})
    network.preset = network.preset.model_copy(update={"train": train})
    made = _for_predictions(network, Context(torch.device("cpu"), tmp_path))
    assert made.model == ("folded" if folds else network.model)
