import numpy as np
import pytest
from PIL import Image

from wsss_cli.data import pages as pages_module
from wsss_cli.data.pages import has_more_pages
from wsss_cli.stages.photographs import find_images


def test_frames_and_pages_are_told_from_one_picture(tmp_path):
    pages = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 90)]
    for ending in ("gif", "webp", "tiff"):
        pages[0].save(tmp_path / f"several.{ending}", save_all=True, append_images=pages[1:])
        pages[0].save(tmp_path / f"one.{ending}")
        (tmp_path / f"cut.{ending}").write_bytes((tmp_path / f"several.{ending}").read_bytes()[:20])
    several = {path.name for path in tmp_path.iterdir() if has_more_pages(path)}
    assert several == {"several.gif", "several.webp", "several.tiff"}
    assert not has_more_pages(tmp_path / "gone.tif")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "MPO"])
def test_frames_are_told_in_a_file_that_is_called_png(tmp_path, kind):
    pages = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 90)]
    pages[0].save(tmp_path / "x.png", kind, save_all=True, append_images=pages[1:])
    assert has_more_pages(tmp_path / "x.png") == (kind != "MPO")
    pages[0].save(tmp_path / "x.png", kind)
    assert not has_more_pages(tmp_path / "x.png")


def test_infer_says_of_which_files_it_takes_the_first_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    pages = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 90)]
    pages[0].save("photos/stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save("photos/a.jpg")
    said: list[str] = []
    assert len(find_images(["photos"], tmp_path / "out", said.append)) == 2
    assert said == ["1 photograph of several pages or frames, of which the first is taken: stack.tif"]
    (tmp_path / "photos/b.tif").write_bytes((tmp_path / "photos/stack.tif").read_bytes())
    monkeypatch.setattr(pages_module, "LOOKED_AT", 1)
    find_images(["photos"], tmp_path / "out", said.append)
    assert said[1].startswith("1 photograph of several pages or frames (of the first 1 that may have them), of which")
