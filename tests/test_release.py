"""The program as it is given away: a source archive, a wheel built of that, and what is in them works alone."""

import json
import re
import shutil
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser

import pytest
from command import ROOT, python

from wsss_cli import __version__

BUILD = "from setuptools import build_meta; build_meta.build_{}('dist')"
"""What `pip wheel --no-build-isolation` calls (PEP 517), without pip: no network is needed."""


def contents():
    """Files that the wheel has to hold, by their names in it: all of the package, and the presets."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wsss_cli").rglob("*") if path.is_file()}
    presets = {f"wsss_cli/presets/{path.name}" for path in (ROOT / "presets").iterdir()}
    return {name for name in files if "__pycache__" not in name} | presets


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The source archive (sdist) of a copy of the checkout that holds nothing else, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in ("wsss_cli", "presets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    assert python(folder, "-c", BUILD.format("sdist")).returncode == 0
    (file,) = (folder / "dist").iterdir()
    with tarfile.open(file) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked" / f"wsss-{__version__}"


@pytest.fixture(scope="module")
def wheel(archive):
    """A wheel that was built of the source archive, unpacked in a folder of its own."""
    assert python(archive, "-c", BUILD.format("wheel")).returncode == 0
    (file,) = (archive / "dist").iterdir()
    assert file.name == f"wsss-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(file) as packed:
        packed.extractall(archive.parent / "wheel")
    return archive.parent / "wheel"


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"wsss-{__version__}.dist-info"
    names = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(info)} == contents()
    assert f"{info}/licenses/LICENSE" in names
    metadata = HeaderParser().parsestr((wheel / info / "METADATA").read_text(encoding="utf-8"))
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == (
        "wsss",
        __version__,
        "Apache-2.0",
    )
    assert "wsss = wsss_cli.__main__:main" in (wheel / info / "entry_points.txt").read_text()


def test_what_is_in_the_wheel_works_alone(wheel, tmp_path):
    def run(*arguments):
        done = python(tmp_path, *arguments, PYTHONPATH=str(wheel))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import wsss_cli; print(wsss_cli.__file__)").startswith(str(wheel))
    assert run("-m", "wsss_cli", "--version") == f"{__version__}\n"
    names = {preset["name"] for preset in json.loads(run("-m", "wsss_cli", "presets", "list", "--json"))["presets"]}
    assert names == {path.stem for path in (ROOT / "presets").glob("*.toml")}
    run("-m", "wsss_cli", "prepare", "toy", "--images", "4", "--val", "2", "--size", "64", "--out", "toy")
    plan = run("-m", "wsss_cli", "run", "--preset", "toy", "--data", "toy", "--dry-run", "--json")
    assert json.loads(plan)["problems"] == []


def test_one_place_has_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "wsss_cli.__version__"}
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_steps_of_the_container_are_those_of_the_page():
    page = (ROOT / "docs/start/install.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```dockerfile\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^RUN (.*)$", recipe, re.MULTILINE)
    rest = page.replace(recipe, "")
    commands = {line.split("  #")[0].strip() for line in re.findall(r"^    (.*)$", rest, re.MULTILINE)}
    assert len(steps) == 2 and "pip install ." in steps
    assert all(step in commands or f"`{step}`" in rest for step in steps), steps
    python_here = re.search(r"^FROM python:([\d.]+)", recipe, re.MULTILINE)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={python_here}"  # the oldest that is taken, with which the tests run
