"""What every --help has in common, what a shell offers after <TAB>, and --quiet."""

import re
import shlex
import subprocess
import sys
import time

import pytest
import typer.main
from command import ROOT, environment

from wsss_cli.cli.app import app
from wsss_cli.cli.commands import folded
from wsss_cli.config.load import load_preset, preset_names

GROUP = typer.main.get_command(app)


def commands(group, path=("wsss",)):
    """(words, command) of a group, of its commands and of all below."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(GROUP))
EXAMPLES = [line for command in COMMANDS.values() for line in getattr(command, "examples", [])]


def parsed(example):
    """The command of an example and its parameters, as the command line is read; nothing is run."""
    words = shlex.split(re.split(r" [>|] ", example)[0], comments=True)
    assert words[0] == "wsss"
    context, rest = GROUP.make_context("wsss", words[1:]), words[1:]
    group = GROUP
    while hasattr(group, "commands"):
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None, example
        context, group = command.make_context(name, rest, parent=context), command
        rest = context.args if hasattr(group, "commands") else []
        rest = [*getattr(context, "_protected_args", []), *rest]
    return context.command, context.params


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_is_whole_sentences_and_ends_with_examples(path):
    command = COMMANDS[path]
    shown = command.get_help(command.context_class(command, info_name=" ".join(path), terminal_width=80))
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"[a-z,;:]\.\.\.$", shown, re.MULTILINE)  # cut off
    *_, last = shown.rstrip().split("\n\n")
    assert last.startswith("  Begin with: wsss demo" if path == ("wsss",) else f"Examples:\n  {' '.join(path)}")


def test_there_are_examples_of_every_command():
    assert [
        path for path, command in COMMANDS.items() if not hasattr(command, "commands") and not command.examples
    ] == []
    assert len(EXAMPLES) > 60


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_read_without_a_complaint_and_its_settings_are_there(example):
    _, parameters = parsed(example)
    preset, overrides = parameters.get("preset"), parameters.get("overrides")
    if preset in preset_names():
        load_preset(preset, overrides or ())


@pytest.mark.parametrize("path", [("wsss",), ("wsss", "runs"), ("wsss", "runs", "list"), ("wsss", "submit")])
def test_minus_h_is_help(wsss, path):
    short, long = wsss(*path[1:], "-h"), wsss(*path[1:], "--help")
    assert short.returncode == 0
    assert short.stdout == long.stdout
    assert "-h, --help" in short.stdout


def test_the_main_help_has_a_panel_for_each_purpose():
    shown = GROUP.get_help(GROUP.context_class(GROUP, info_name="wsss", terminal_width=80))
    panels = re.findall(r"^(\w+):\n((?:  .*\n)+)", shown, re.MULTILINE)
    assert [name for name, _ in panels] == ["Options", "Data", "Stages", "Results", "Tools"]
    assert panels[1][1].startswith("  prepare")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_help_names_a_type_of_python(path):
    command = COMMANDS[path]
    shown = command.get_help(command.context_class(command, info_name=" ".join(path), terminal_width=80))
    assert not re.search(r"<\w+[]>|[]|[{]", shown.split("Examples:")[0])
    names = re.findall(r"^  ([^\s-]\S*)", shown.partition("Arguments:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert [name for name in names if name[0] != name[0].upper()] == []


def test_an_option_with_a_few_values_shows_them(wsss):
    assert "--format onnx|torchscript " in wsss("export", "-h").stdout
    assert wsss("infer", "-h").stdout.startswith("Usage: wsss infer [OPTIONS] ")


def test_a_long_example_is_folded_where_a_shell_takes_that():
    lines = folded("wsss train --preset toy --masks runs/pseudo-toy --set 'a=[1, 2]'", 40)
    assert lines == ["wsss train --preset toy \\", "    --masks runs/pseudo-toy \\", "    --set 'a=[1, 2]'"]
    joined = subprocess.run(["bash", "-c", f"printf '%s|' {chr(10).join(lines)}"], capture_output=True, text=True)
    assert joined.stdout == "wsss|train|--preset|toy|--masks|runs/pseudo-toy|--set|a=[1, 2]|"


# -- after <TAB> -------------------------------------------------------------------------------------------------------


@pytest.fixture
def offered(wsss, tmp_path):
    """What bash is offered for the last word of a command line."""

    def offer(line):
        words = line.split(" ")
        done = wsss(_WSSS_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return offer


def test_commands_presets_and_settings_are_offered(offered):
    assert offered("wsss pre") == ["prepare", "presets"]
    assert offered("wsss bench cr") == ["crf"]
    assert offered("wsss run --preset voc-animals") == ["voc-animals-best", "voc-animals-lite0"]
    assert {"cam.scales", "cam.flip", "cam.method.layer"} <= set(offered("wsss run --set cam."))
    assert all(key.startswith("cam.") for key in offered("wsss run --set cam."))
    assert offered("wsss run --set cam.sc") == ["cam.scales", "cam.scales="]  # two, or bash would add a space
    assert offered("wsss run --set eval.mode=") == ["eval.mode=whole", "eval.mode=slide"]


def test_runs_of_the_stage_that_is_asked_for_are_offered(offered, tmp_path):
    for stage in ("train", "cam", "pseudo"):
        (tmp_path / f"runs/{stage}-toy-1a2b3c4d").mkdir(parents=True)
        record = f'{{"stage": "{stage}", "preset": "toy", "state": "done", "identity": "1a2b3c4d", "created": 1.0}}'
        (tmp_path / f"runs/{stage}-toy-1a2b3c4d/run.json").write_text(record)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert offered("wsss eval --runs elsewhere runs") == []
    assert offered("wsss train --runs elsewhere --masks e") == ["elsewhere/pseudo-toy-1a2b3c4d"]
    assert sorted(offered("wsss report --runs elsewhere elsewhere/")) == [
        "elsewhere/cam-toy-1a2b3c4d",
        "elsewhere/pseudo-toy-1a2b3c4d",
        "elsewhere/train-toy-1a2b3c4d",
    ]
    assert offered("wsss runs show --runs elsewhere tr") == ["train-toy-1a2b3c4d"]


@pytest.mark.parametrize("line", ["wsss ", "wsss run --preset ", "wsss run --set cam.", "wsss infer "])
def test_what_is_offered_needs_no_torch(line, tmp_path):
    """Its time is bound by that: half a second at most on a quiet machine."""
    code = f"""
import atexit, os, sys
atexit.register(lambda: print("torch" in sys.modules, "numpy" in sys.modules, file=sys.stderr))
os.environ |= {{"_WSSS_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": {line!r}}}
sys.argv = ["wsss"]
from wsss_cli.cli.app import main
main()
"""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path)
    )
    assert done.stderr == "False False\n"
    assert time.monotonic() - begin < 30


def test_the_script_for_a_shell_is_printed(wsss):
    done = wsss("--show-completion", "bash")
    assert (done.returncode, "_WSSS_COMPLETE=complete_bash" in done.stdout) == (0, True)


# -- --quiet -----------------------------------------------------------------------------------------------------------


def test_quiet_leaves_results_and_errors(wsss):
    loud, quiet = wsss("presets", "list"), wsss("presets", "list", "-q")
    assert loud.stdout == quiet.stdout
    assert (loud.stderr != "", quiet.stderr) == (True, "")
    drawn = wsss("prepare", "toy", "--images", "2", "--size", "32", "--quiet")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    wrong = wsss("train", "--preset", "toi", "--quiet")
    assert wrong.stderr.startswith("error: there is no preset 'toi'\nhint: ")


def test_the_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert [name for name in GROUP.commands if f"`wsss {name}" not in text] == []
