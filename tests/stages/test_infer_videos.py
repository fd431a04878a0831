"""Videos, frame by frame: the right frames by the right names, streamed, gone on with, and damage named."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import Blue

from wsss_cli.cli.infer import named
from wsss_cli.config.load import load_preset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.videos import frames_of, is_cut_off, open_video
from wsss_cli.engine import work as work_module
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.shards import Shard
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.network import Network
from wsss_cli.stages import clips, infer
from wsss_cli.stages.infer_all import infer_all
from wsss_cli.stages.photographs import find_images
from wsss_cli.stages.products import predicted_products

CODECS = {"mp4": "mp4v", "avi": "MJPG", "mkv": "mp4v", "mov": "mp4v"}


def film(file, frames=12):
    """A video of 64x48 pixels: frame N, from 1, is blue in 4 * N columns, and else yellow."""
    codec = cv2.VideoWriter_fourcc(*CODECS[file.suffix[1:]])
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, codec, 10, (64, 48))
    for number in range(1, frames + 1):
        frame = np.full((48, 64, 3), (0, 255, 255), np.uint8)
        frame[:, : 4 * number] = (255, 0, 0)
        writer.write(frame)
    writer.release()
    return file


@pytest.fixture
def segment(tmp_path):
    network = Network(Blue(), load_preset("toy"), tuple("abcdef"), ((0, 0, 0),) * 6, 3, "data/toy", "run 1")
    ctx = Context(torch.device("cpu"), tmp_path)

    def segment(*videos, every=1, limit=0, shard=None, **how):
        more = {"ms_flip": False, "beside": (), "shard": shard, **how}
        run = partial(infer.run_infer, network=network, out=tmp_path / "out", ctx=ctx, **more)
        done = infer_all(run, (), videos, ctx, every=every, limit=limit)
        return done["images"], done["kept"], [entry["reason"] for entry in done["lost"]]

    return segment


def numbers_of(folder):
    return sorted(int(file.stem) for file in folder.iterdir())


@pytest.mark.parametrize("kind", CODECS)
def test_each_frame_has_its_mask(segment, tmp_path, kind):
    assert segment(film(tmp_path / f"clip.{kind}")) == (12, 0, [])
    masks = tmp_path / "out/masks/clip"
    assert numbers_of(masks) == list(range(1, 13))
    for number in range(1, 13):
        mask = read_mask(masks / f"{number:06d}.png")
        assert mask.shape == (48, 64)
        assert abs((mask[24] == 1).sum() - 4 * number) <= 2  # codecs blur edges
    products, gone = predicted_products(tmp_path / "out")
    assert (len(products), gone, {product.image for product in products}) == (12, 0, {None})


def test_some_frames_first_frames_and_parts(segment, tmp_path):
    clip, masks = film(tmp_path / "clip.avi"), tmp_path / "out/masks/clip"
    assert segment(clip, every=5, limit=2) == (2, 0, []) and numbers_of(masks) == [1, 6]
    assert segment(clip, every=5) == (1, 2, []) and numbers_of(masks) == [1, 6, 11]
    one = segment(clip, shard=Shard(1, 2))
    other = segment(clip, shard=Shard(2, 2))
    assert one[0] + other[0] == 9 and numbers_of(masks) == list(range(1, 13))
    assert segment(clip) == (0, 12, [])
    mask = read_mask(masks / "000011.png")
    assert abs((mask[24] == 1).sum() - 44) <= 2
    film(clip, frames=11)  # another video of this name
    assert segment(clip) == (11, 0, [])


def test_a_killed_command_goes_on_where_it_stood(segment, tmp_path, monkeypatch):
    clip, add, counts = film(tmp_path / "clip.mp4"), infer.Journal.add, iter(range(100))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            infer.Journal,
            "add",
            lambda *args, **how: add(*args, **how) if next(counts) < 5 else (_ for _ in ()).throw(KeyboardInterrupt),
        )
        segment(clip)
    images, there, lost = segment(clip)
    assert (images, there, lost) == (7, 5, [])


def test_frames_are_decoded_as_they_are_needed(segment, tmp_path, monkeypatch):
    events = []

    def decoded(*args, **how):
        for frame in frames_of(*args, **how):
            events.append("decoded")
            yield frame

    monkeypatch.setattr(clips, "frames_of", decoded)
    monkeypatch.setattr(infer, "largest_batch", lambda *args, **how: 1)
    monkeypatch.setattr(work_module, "THREADS", 1)
    add = infer.Journal.add
    monkeypatch.setattr(infer.Journal, "add", lambda *args, **how: (events.append("written"), add(*args, **how)))
    assert segment(film(tmp_path / "clip.avi", frames=15)) == (15, 0, [])
    assert events.count("decoded") == 15
    assert events.index("written") < 10


@pytest.mark.parametrize("kind", CODECS)
def test_videos_that_are_cut_off_are_known(tmp_path, kind):
    clip = film(tmp_path / f"clip.{kind}")
    assert not is_cut_off(clip)
    whole = clip.read_bytes()
    for share in (0.3, 0.9):
        clip.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=rf"clip\.{kind} is cut off: its end is missing"):
            open_video(clip, 100, lambda: None)


def test_damage_is_named_and_the_others_go_on(segment, tmp_path, capfd, monkeypatch):
    good = film(tmp_path / "good.mp4")
    for name, data in (
        ("none.mp4", b"no video" * 100),
        ("empty.avi", b""),
        ("cut.avi", film(tmp_path / "cut.avi").read_bytes()[:-99]),
    ):
        (tmp_path / name).write_bytes(data)
    images, _, lost = segment(tmp_path / "none.mp4", good, tmp_path / "empty.avi", tmp_path / "cut.avi")
    assert images == 12
    assert [reason.replace(f"{tmp_path}/", "") for reason in lost] == [
        "video none.mp4 cannot be decoded",
        "video empty.avi cannot be decoded",
        "video cut.avi is cut off: its end is missing",
    ]
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("WSSS_MAX_PIXELS", "3000")
    with pytest.raises(DataError, match="64x48 pixels, 3,072; the limit is 3,000"):
        open_video(good, 100, lambda: None)


def test_command_lines_name_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips/a.mp4", "clips/b.MOV", "clips/c.jpg", "other/a.avi"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    out = Path("out")
    paths, *others = named(["clips/a.mp4", "clips/c.jpg"], out, 0, 3, alone=True)
    assert (list(paths), *others) == (["clips/c.jpg"], [Path("clips/a.mp4")], "")
    assert named(["clips/*.mp4", "clips/b.MOV"], out, 2, None, alone=True)[1:] == (
        [Path("clips/a.mp4"), Path("clips/b.MOV")],
        "limit 2: the first 2 frames of each video, and as many photographs",
    )
    for given, every, alone, error in (
        (["clips/c.jpg"], 3, True, "--every 3 is for videos, and none is named"),
        (["clips/a.mp4"], None, False, "clips/a.mp4 is decoded by one process"),
        (["clips/d.mp4"], None, True, "clips/d.mp4 names no video"),
        (["clips/*.mkv"], None, True, r"clips/\*.mkv names no video"),
        (["clips/a.mp4", "other/a.avi"], None, True, "two videos are named a; the masks"),
    ):
        with pytest.raises(UsageError, match=error):
            named(given, out, 0, every, alone=alone)
    with pytest.raises(UsageError, match="other names no image") as named_none:
        find_images(["other"], out, print)
    assert named_none.value.hint == "name videos, or a pattern such as 'clips/*.mp4'"
    Path("clips/._a.mp4").touch()  # as macOS leaves them
    assert clips.videos_of(["clips/*a.mp4"])[0] == [Path("clips/a.mp4")]
    heard = []
    assert list(find_images(["clips"], out, heard.append)) == ["clips/./c.jpg"]
    assert heard == ["clips: 2 videos passed over: name them, or a pattern such as 'clips/*.mp4'"]


def test_videos_of_other_endings_are_said_to_be_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    Path("clips/a.wmv").touch()
    Image.new("RGB", (8, 8)).save("clips/c.jpg")
    with pytest.raises(UsageError, match="is a video, and those that end in") as refused:
        find_images(["clips/a.wmv"], tmp_path / "out", print)
    assert ".mp4" in refused.value.hint
    with pytest.raises(UsageError, match=r"there is no gone\.mpv") as refused:
        find_images(["gone.mpv"], tmp_path / "out", print)
    assert "videos by their names: .mp4" in refused.value.hint
    heard = []
    assert list(find_images(["clips"], tmp_path / "out", heard.append)) == ["clips/./c.jpg"]
    assert heard == ["clips: passed over, as these endings are not read: 1 .wmv"]


@pytest.mark.parametrize("bad", [[4, 5, 6], [0], [11], [4, 8]])
def test_frames_behind_one_that_does_not_decode_have_their_masks_and_their_numbers(segment, tmp_path, bad):
    clip = film(tmp_path / "clip.avi")
    data = bytearray(clip.read_bytes())
    begins = [at for at in range(len(data)) if data[at : at + 4] == b"00dc" and data[at + 8 : at + 10] == b"\xff\xd8"]
    for frame in bad:
        length = int.from_bytes(data[begins[frame] + 4 : begins[frame] + 8], "little")
        data[begins[frame] + 8 : begins[frame] + 8 + length] = bytes(length)
    clip.write_bytes(data)
    within = [frame + 1 for frame in bad if frame < 11]
    said = [f"{clip} frame {number} does not decode" for number in within]
    good = [number for number in range(1, 13) if number - 1 not in bad]
    assert segment(clip) == (len(good), 0, said)
    assert numbers_of(tmp_path / "out/masks/clip") == good
    for number in good:
        assert abs((read_mask(tmp_path / f"out/masks/clip/{number:06d}.png")[24] == 1).sum() - 4 * number) <= 2
    assert segment(clip) == (0, len(good), said)
    assert [image is None for image in frames_of(clip, [2, 5, 7, 11], lambda: None)] == [
        number in within for number in (2, 5, 7, 11)
    ]


@pytest.mark.parametrize("kind", ["avi", "mkv"])
def test_frames_that_are_not_found_are_counted(segment, tmp_path, monkeypatch, kind):
    """The heads of frames are gone, too: a file says how many it has, a Matroska file how long it lasts."""
    clip = film(tmp_path / f"clip.{kind}", frames=40)
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    if kind == "avi":
        begins = [at for at in range(len(data)) if data[at : at + 4] == b"00dc"]
        data[begins[4] : begins[6]] = bytes(begins[6] - begins[4])
    clip.write_bytes(data)
    video = open_video(clip, 10**9, lambda: None)
    assert 0 < video.missing == 40 - video.frames
    assert open_video(film(tmp_path / f"whole.{kind}"), 10**9, lambda: None).missing == 0
    assert open_video(clip, 3, lambda: None).missing == 0
    lines = []
    monkeypatch.setattr(Silent, "say", lambda self, line: lines.append(line))
    segment(clip)
    of = "about 40" if kind == "mkv" else "40"
    assert f"{video.frames} frames are found of {of} that the file says it has" in lines[0]
