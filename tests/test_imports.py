"""Who may import whom, and what the command line must not load."""

import ast
import json
import resource
import tomllib
from pathlib import Path

import pytest
from command import python

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wsss_cli"
BOTTOM = {"errors", "files", "locks", "processes", "labels", "talk", "escapes", "ranks", "rows", "signals", "kinds"}
METHODS = {"data", "weights", "models", "losses", "metrics", "crf", "kernels"}
GLUE = {"engine", "inference", "scoring", "interchange", "report", "cam", "noise", "pseudo"}
MAY_IMPORT = {
    "errors": set(),
    "rows": set(),
    "kinds": set(),
    "labels": set(),
    "escapes": set(),
    "talk": {"escapes"},
    "locks": {"errors", "talk"},
    "files": {"errors"},
    "processes": {"errors", "signals"},
    "ranks": {"errors", "processes", "signals"},
    "config": BOTTOM,
    **{name: BOTTOM | {"config", "kernels"} for name in METHODS},
    "models": BOTTOM | {"config", "kernels", "weights"},
    "kernels": BOTTOM,
    "engine": BOTTOM | {"config"},
    "report": BOTTOM | {"config", "metrics"},
    "cam": BOTTOM | {"config"} | METHODS,
    "noise": BOTTOM | {"config"} | METHODS,
    "pseudo": BOTTOM | {"config", "cam"} | METHODS,
    "scoring": BOTTOM | {"config", "cam", "engine"} | METHODS,
    "inference": BOTTOM | {"config", "engine"} | METHODS,
    "interchange": BOTTOM | {"config", "engine", "inference"} | METHODS,
    "stages": BOTTOM | {"config"} | METHODS | GLUE,
    "bench": BOTTOM | {"config", "stages"} | METHODS | GLUE,
    "cli": BOTTOM | {"config", "stages", "bench"} | METHODS | GLUE,
    "__main__": {"cli", "engine"},
    "__init__": {"inference"},
}
HEAVY = {"torch", "torchvision", "numpy", "cv2", "timm", "pydensecrf", "pycocotools", "safetensors", "PIL"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree, top_level=False):
    """Modules that a tree imports, dotted; those of functions and of `if TYPE_CHECKING` too unless `top_level`."""
    for node in ast.walk(tree) if not top_level else executed(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def executed(body):
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from executed(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from executed(handler.body)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name(path):
    return path.relative_to(PACKAGE).as_posix()


def wrong_imports(place, path_name, tree):
    for module in imported(tree):
        parts = module.split(".")
        if parts[0] != "wsss_cli" or parts[1] == "__version__":
            continue
        tables = place == "stages" and parts[1] == "report" and parts[2] in ("tables", "benchmarks")
        if tables or parts[1] not in MAY_IMPORT[place] | {place}:
            yield module
    if place != "cli" and any(module.split(".")[0] in ("typer", "click") for module in imported(tree)):
        yield "typer"
    rich = any(module.split(".")[0] == "rich" for module in imported(tree))
    if rich and path_name not in ("cli/progress.py", "report/tables.py"):
        yield "rich"
    heavy = HEAVY if place in ("config", "cli", "errors", "files") else set()
    top_level = place == "cli"
    yield from (module for module in imported(tree, top_level) if module.split(".")[0] in heavy)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_module_imports_only_what_it_may(path):
    assert list(wrong_imports(room(path), name(path), ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("place", "code", "wrong"),
    [
        ("engine", "from wsss_cli.models.build import build_segmentor", "wsss_cli.models.build.build_segmentor"),
        ("data", "def f():\n    from wsss_cli.cli import console", "wsss_cli.cli.console"),
        ("stages", "from wsss_cli.report.tables import Table", "wsss_cli.report.tables.Table"),
        ("config", "def f():\n    import numpy.linalg", "numpy.linalg"),
        ("cli", "try:\n    import torch\nexcept ImportError:\n    pass", "torch"),
        ("cli", "import rich.console", "rich"),
        ("models", "import typer", "typer"),
    ],
)
def test_a_wrong_import_is_found(place, code, wrong):
    assert list(wrong_imports(place, "x.py", ast.parse(code))) == [wrong]


def test_the_command_line_may_import_torch_inside_a_function():
    code = "if TYPE_CHECKING:\n    import torch\ndef f():\n    import numpy"
    assert list(wrong_imports("cli", "cli/x.py", ast.parse(code))) == []


def test_the_wheel_has_every_package_and_the_presets():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(listed) == there | {"wsss_cli.presets"}
    assert all((folder / "__init__.py").is_file() for folder in {path.parent for path in FILES})


# -- in a process ------------------------------------------------------------------------------------------------------

LIGHT = [
    ["--help"],
    ["--version"],
    ["presets", "list"],
    ["presets", "show", "toy"],
    ["presets", "check"],
    ["runs", "list"],
    ["weights", "import-mmseg", "--help"],
    ["export", "--help"],
    ["train", "--help"],
    ["train", "--preset", "toy", "--dry-run"],
    ["run", "--preset", "toy", "--dry-run"],
    ["cam", "--preset", "toy", "--dry-run", "--json"],
    ["pseudo", "--preset", "toy", "--dry-run"],
    ["submit", "--dry-run", "--", "run", "--preset", "toy"],
]
OTHERS = {"wsss_cli.cli.infer", "wsss_cli.cli.bench", "wsss_cli.cli.prepare"}  # commands


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_a_light_command_loads_nothing_heavy(arguments, tmp_path):
    code = f"""
import atexit, json, sys
atexit.register(lambda: print("\\n" + json.dumps(sorted({HEAVY!r} & set(sys.modules)))))
sys.argv = ["wsss", *{arguments!r}]
from wsss_cli.cli.app import main
main()
"""
    data = tmp_path / "data/toy"
    (data / "splits").mkdir(parents=True)
    (data / "dataset.json").write_text('{"classes": ["background", "cat"]}')
    (data / "splits/train.csv").write_text("id,image,mask,labels\na,a.png,a.png,cat\n")
    (data / "a.png").write_bytes(b"looked at by nobody")
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    *shown, loaded = done.stdout.rstrip().splitlines()
    assert json.loads(loaded) == []
    assert shown or arguments[0] == "runs"  # it did something


def test_a_command_loads_neither_the_others_nor_what_it_does_without(tmp_path):
    """Seconds of a start: `runs list` without runs shows no table and reads no preset."""
    code = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
sys.argv = ["wsss", "runs", "list"]
from wsss_cli.__main__ import main
main()
"""
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "wsss_cli.cli.runs" in loaded
    assert {"wsss_cli.config.schema", "rich.console", "filelock", "ssl", *OTHERS} & loaded == set()


def test_the_package_loads_torch_only_when_it_is_needed(tmp_path):
    code = f"""
import sys, wsss_cli
assert not {HEAVY!r} & set(sys.modules)
assert "load_segmentor" in dir(wsss_cli)
from wsss_cli import load_segmentor
assert "torch" in sys.modules and callable(load_segmentor)
try:
    wsss_cli.load_segmenter
except AttributeError as error:
    print(error)
"""
    done = python(tmp_path, "-c", code)
    assert done.stdout == "module 'wsss_cli' has no attribute 'load_segmenter'\n", done.stderr


def test_help_is_fast(tmp_path):
    took = []
    for _ in range(3):
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = python(tmp_path, "-m", "wsss_cli", "--help")  # as a user starts it
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(end.ru_utime - begin.ru_utime + end.ru_stime - begin.ru_stime)  # other work does not count
        assert done.returncode == 0
        assert "presets" in done.stdout
    assert min(took) < 1.0
