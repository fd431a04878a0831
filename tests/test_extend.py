"""docs/how-to/extend.md: each worked example is applied to a copy of the package, and its check is run."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest
from command import python

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "extend.md"
BLOCK = re.compile(r"^```(\w+) (check|file=\S+)\n(.*?)^```$", re.M | re.S)


def changed(text, diff):
    """A text with the hunks of a diff applied; lines of context say where, there are no line numbers."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        if not hunk.strip():
            continue
        lines = hunk.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
        assert text.count(before) == 1, f"stands {text.count(before)} times in the file:\n{before}"
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize(
    ("diff", "result"),
    [(" a\n+b\n", "a\nb\nc\n"), ("-a\n+b\n", "b\nc\n"), (" a\n+b\n@@\n-c\n", "a\nb\n"), (" a\n-c\n", "a\n")],
)
def test_a_diff_is_applied(diff, result):
    assert changed("a\nc\n", diff) == result


def test_a_diff_whose_place_is_gone_is_refused():
    with pytest.raises(AssertionError, match="stands 0 times"):
        changed("a\nc\n", " b\n+d\n")


def test_every_example_can_be_built_and_does_what_it_says(tmp_path):
    shutil.copytree(ROOT / "wsss_cli", tmp_path / "wsss_cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    checks = [body for _, kind, body in blocks if kind == "check"]
    assert len(checks) == PAGE.read_text(encoding="utf-8").count("\n## ")
    for language, kind, body in blocks:
        if kind == "check":
            continue
        file = tmp_path / kind.removeprefix("file=")
        if language == "diff":
            file.write_text(changed(file.read_text(encoding="utf-8"), body), encoding="utf-8")
        else:
            assert not file.exists(), f"{file} is there already"
            file.write_text(body, encoding="utf-8")
    functions = "".join(
        f"def check_{number}():\n{textwrap.indent(body, '    ')}\n\ncheck_{number}()\n"
        for number, body in enumerate(checks)
    )
    assert python(tmp_path, "-c", functions, PYTHONPATH=str(tmp_path)).returncode == 0
