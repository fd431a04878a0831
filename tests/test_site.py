"""The documentation as a site: every command and every setting is in its reference, and every link leads somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

from wsss_cli.config.load import leaves, load_preset, preset_names

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The module that makes the site, and the folder of its sources."""
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("site") / "docs"
    module.sources(folder)
    return module, folder


def test_every_command_is_in_the_reference(site):
    module, folder = site
    text = (folder / "reference" / "commands.md").read_text()
    names = [name for name, _ in module.commands()]
    assert {"prepare folder", "train", "runs show", "bench crf"} <= set(names)
    assert all(f"\n## wsss {name}\n" in text for name in names)
    assert "`--ms-flip`" in text and "wsss cam --preset toy" in text


def test_every_setting_of_every_preset_is_in_the_reference(site):
    _, folder = site
    text = (folder / "reference" / "settings.md").read_text()
    keys = {re.sub(r"(\[\])? \([a-z0-9-]+\)", r"\1", key) for key in re.findall(r"^\| `(.*?)`", text, flags=re.M)}
    plain = {key.split("[")[0] for key in keys}
    for name in preset_names():
        for key, _ in leaves(load_preset(name).model_dump(mode="json")):
            assert key in keys or key in plain or key.endswith("kind"), key
    assert "| `classifier.iters` | integer ≥ 1 |" in text


def test_links_lead_somewhere(site):
    _, folder = site
    pages = sorted(folder.rglob("*.md"))
    assert len(pages) > 50
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not re.match(r"https?:|mailto:", link):
                assert (page.parent / link).exists(), f"{page.relative_to(folder)}: {link}"


def test_every_page_of_the_documentation_is_in_the_navigation(site):
    module, folder = site
    written = str(module.navigation(folder))
    for page in folder.rglob("*.md"):
        assert str(page.relative_to(folder)) in written
    assert module.toml([{"A": "b"}, "c"]) == '[{ "A" = "b" }, "c"]'
