"""The `wsss` command: registers the subcommands and turns every failure into one clear line and its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from wsss_cli import __version__
from wsss_cli.cli import console
from wsss_cli.cli.commands import App, Group
from wsss_cli.cli.progress import watch
from wsss_cli.engine.stop import Stopped, end_at_once, heard, leave_on_signal
from wsss_cli.errors import Interrupted, PeerError, Preempted, ResourceError, WsssError, out_of_memory
from wsss_cli.files import at_home
from wsss_cli.ranks.who import here

# Typer before 0.27 raises click's exceptions, later ones those of a copy that it carries: both by their own base class
ClickError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


DATA, STAGES, RESULTS, TOOLS = "Data", "Stages", "Results", "Tools"  # panels of the help
COMMANDS = {
    "prepare": ("prepare", "app", DATA),
    "import-scores": ("import_scores", "import_scores", DATA),
    "advise": ("import_scores", "advise", DATA),
    "verify": ("verify", "verify", DATA),
    "run": ("run", "run", STAGES),
    "cam": ("cam", "cam", STAGES),
    "pseudo": ("pseudo", "pseudo", STAGES),
    "train": ("train", "train", STAGES),
    "eval": ("eval", "evaluate", STAGES),
    "submit": ("submit", "submit", STAGES),
    "infer": ("infer", "infer", RESULTS),
    "table": ("table", "table", RESULTS),
    "report": ("report", "report", RESULTS),
    "show": ("show", "show", RESULTS),
    "export-masks": ("export_masks", "export_masks", RESULTS),
    "export": ("export", "export", RESULTS),
    "serve": ("serve", "serve", RESULTS),
    "demo": ("demo", "demo", TOOLS),
    "doctor": ("doctor", "doctor", TOOLS),
    "runs": ("runs", "app", RESULTS),
    "presets": ("presets", "app", TOOLS),
    "weights": ("weights", "app", TOOLS),
    "bench": ("bench", "app", TOOLS),
}
"""Of each command, in the order of the help: its module here, its function or group of commands there, its panel."""
SETTINGS = {"submit": {"context_settings": {"allow_interspersed_args": False}}}


class Commands(Mapping[str, Any]):
    """The commands by name, each loaded when it is looked up: one command does not wait for the modules of all."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, what, panel = COMMANDS[name]
            command = getattr(import_module(f"wsss_cli.cli.{module}"), what)
            alone = App()
            if isinstance(command, App):
                alone.add_typer(command, name=name, rich_help_panel=panel)
            else:
                alone.command(name, rich_help_panel=panel, **SETTINGS.get(name, {}))(command)
            self._loaded[name] = typer.main.get_group(alone).commands[name]
        return self._loaded[name]


class Root(Group):
    """Typer's own main ends without a word on Ctrl-C, and on a broken pipe of whatever: not so here."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds to it

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted", "run the same command again to go on") from None
        except BrokenPipeError as error:  # not of stdout or stderr, see `console.Stream`
            raise ResourceError(f"cannot use {error.filename or 'a file'}: {error.strerror}", _hint(error)) from error


app = App(
    name="wsss",
    cls=Root,
    help="Weakly supervised semantic segmentation: from image tags to masks and a trained network.",
    epilog="Begin with: wsss demo    (data sets: wsss prepare --help)",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        console.result(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; never returns."""
    end_at_once()
    console.open_streams()
    keep_apart()
    code = _run()
    leave_on_signal(code)  # all is said and done
    if code == 0 and (error := console.lost_result()):
        code = _fail(f"cannot write the result: {error.strerror or error}", _hint(error), 3)
    sys.exit(code)


def keep_apart() -> None:
    """Let Python processes that this one starts not take files of the current folder (random.py) for modules.

    A process that was started so itself (python -m wsss_cli in a checkout) may need them.
    """
    with contextlib.suppress(OSError):  # the folder is gone
        if not {"", str(Path.cwd())} & set(sys.path):
            os.environ.setdefault("PYTHONSAFEPATH", "1")


def _at_home(word: str) -> str:
    """A word of the command line; what ~ is behind the = of an option, or in quotes, no shell says."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{at_home(value)}"


def _run() -> int:
    if getattr(sys.stdout, "errors", "") == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file name need not be UTF-8
    try:
        if here().rank:
            console.leave_to_first()
        else:
            watch()
        code = app([_at_home(word) for word in sys.argv[1:]], standalone_mode=False, prog_name="wsss")
        return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a command group alone: its help
            console.result(error.format_message())
            return 2
        command = getattr(getattr(error, "ctx", None), "command_path", "wsss")
        said = " ".join(error.format_message().split()).replace(": Input should be", ": it should be")
        return _fail(said, f"{_no_option()}see {command} --help", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", "run the same command again to go on", 130)
    except Stopped as stopped:
        return _fail(stopped.error.message, stopped.error.hint, stopped.error.exit_code)
    except WsssError as error:
        if isinstance(error, PeerError) and _rank():  # the rank that ended has said it, and the first
            return error.exit_code
        signalled = heard()  # which a library has made a fault of its own
        shown = signalled.error if signalled else error
        return _fail(shown.message, shown.hint, shown.exit_code)
    except UnicodeEncodeError as error:  # bytes of a name that are no text came in as halves of characters
        if not any("\udc80" <= character <= "\udcff" for character in error.object):
            return _bug(error)
        return _fail(f"the name is not UTF-8 and cannot be written to a record: {error.object[:300]!r}", PLAIN_NAMES, 3)
    except OSError as error:
        if error.errno is None:
            return _bug(error)
        if error.errno == errno.ENOENT and not error.filename and _folder_gone():
            return _fail("the folder that this was started in is not there any more", "cd to one that is there", 3)
        verb = "write" if error.errno in FULL else "use"
        return _fail(f"cannot {verb} {error.filename or 'a file'}: {error.strerror}", _hint(error), 3)
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # of Path.resolve
            return _fail(f"{error}", HINTS[errno.ELOOP], 3)
        if isinstance(error, RuntimeError) and str(error).startswith("operator torchvision::"):  # on its import
            return _fail(f"torchvision cannot be loaded, as it is of another torch: {error}", BOTH_ANEW, 3)
        if signalled := heard():  # taken for something else by the library that was at work
            return _fail(signalled.error.message, signalled.error.hint, signalled.error.exit_code)
        if out_of_memory(error):
            return _fail(f"out of memory: {' '.join(str(error).split())[:200]}".rstrip(": "), LESS_MEMORY, 3)
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ImportError) and package != "wsss_cli":  # of another package, or of a library below it
            return _fail(f"{package or 'a package'} cannot be loaded: {error}", _reinstall(package), 3)
        return _bug(error)


def _no_option() -> str:
    """A hint on words of the command line that are taken for options and are files that are there; else nothing."""
    files = [word for word in sys.argv[1:] if word.startswith("-") and os.path.lexists(word)]
    return f"of a name that begins with a hyphen write {shlex.quote(f'./{files[0]}')}; " if files else ""


PLAIN_NAMES = "rename the file or folder, or link to it by another name; where it is UTF-8, set LC_ALL=C.UTF-8"
LESS_MEMORY = "lower the batch or the crop of this stage, use fewer workers, or a machine with more memory"
BOTH_ANEW = "install the two together in this environment: pip install --force-reinstall torch torchvision"
FULL = (errno.ENOSPC, errno.EDQUOT)
HINTS = {
    **dict.fromkeys(FULL, "free space, then run again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit on open files (ulimit -n), or use fewer workers"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a place that you may use, then run again"),
    **dict.fromkeys((errno.EAGAIN, errno.ENOMEM), "use fewer workers, or a machine with more memory and processes"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "choose another place: a shorter name, no circle of links"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "see whether the disk is sound, then run again"),
}


def _reinstall(package: str) -> str:
    if package == "cv2":
        return (
            "pip uninstall opencv-python opencv-contrib-python, then "
            "pip install --force-reinstall opencv-python-headless, which needs no library of a screen"
        )
    called = {"PIL": "pillow", "pydensecrf": "pydensecrf2"}.get(package, package or "wsss")
    return f"install it again in this environment: pip install --force-reinstall {called}"


def _folder_gone() -> bool:
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _hint(error: OSError) -> str:
    return HINTS.get(error.errno or 0, "see whether this place can be used, then run again")


def _fail(message: str, hint: str, code: int) -> int:
    if "--json" in sys.argv:
        console.result_json({"error": message, "hint": hint, "exit_code": code})
    rank = _rank()
    if rank and code in (Preempted.exit_code, Interrupted.exit_code):
        return code  # all ranks stop together, and the first says so
    say = partial(console.say_of_rank, rank) if rank else console.complain
    for line in message.splitlines() or [""]:
        say(f"error: {line}")
    for line in hint.splitlines():
        say(f"hint: {line}")
    return code


def _rank() -> int:
    """The rank of this process, 0 where its environment makes no sense."""
    with contextlib.suppress(WsssError):
        return here().rank
    return 0


def _bug(error: BaseException) -> int:
    if os.environ.get("WSSS_DEBUG"):
        traceback.print_exc()
    path = Path(tempfile.gettempdir()) / f"wsss-bug-{os.getpid()}.txt"
    with contextlib.suppress(OSError):
        path.write_text(traceback.format_exc(), encoding="utf-8")
    message = " ".join(str(error).split())[:200]
    return _fail(f"a bug: {type(error).__name__}: {message}", f"please report it with {path}", 1)


if __name__ == "__main__":
    main()
