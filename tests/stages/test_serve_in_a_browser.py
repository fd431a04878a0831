"""The page of `wsss serve` in a real browser, where playwright and Chromium are there."""

import shutil

import pytest
from test_serve import network, picture, served  # noqa: F401

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_photograph_that_is_chosen_shows_its_mask_and_classes(served, tmp_path, width):  # noqa: F811
    address = served()
    (tmp_path / "photo.png").write_bytes(picture(60, 80)[1])
    (tmp_path / "notes.png").write_bytes(b"no photograph")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_function("document.getElementById('about').textContent.includes('train-toy')")
        page.set_input_files("#file", str(tmp_path / "photo.png"))
        page.wait_for_selector("#result", state="visible")
        assert page.locator("#said").text_content().startswith("80 x 60 pixels")
        assert page.evaluate("document.getElementById('overlay').naturalWidth") == 80
        assert page.locator("#classes li").count() >= 1
        assert page.locator("#classes b").count() == 0  # names are no markup
        assert page.get_attribute("#mask", "href").startswith("data:image/png;base64,")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.set_input_files("#file", str(tmp_path / "notes.png"))
        page.wait_for_selector("#said.error")
        assert "no photograph that can be read" in page.locator("#said").text_content()
        assert not page.is_visible("#result")
        browser.close()
    assert faults == []
