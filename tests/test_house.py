"""Rules of the house that no linter has: public functions say what they raise, and nothing grows without end."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wsss_cli"
FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, PARAMETERS = 350, 80, 9
EMPTY_NAMES = {"found", "made", "own", "kept", "given"}  # they say how a thing came about, not what it is
ERRORS = {node.name for node in ast.parse(FILES["errors.py"]).body if isinstance(node, ast.ClassDef)} | {"ValueError"}


def functions(tree, *, public_only):
    """Functions and methods, outermost first; of public classes alone where that is asked for."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if named and public_only and node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef):
            yield node
        if not (public_only and isinstance(node, ast.FunctionDef)):  # what is inside a function is no public thing
            yield from functions(node, public_only=public_only)


def raised(node):
    """Names of our errors that leave a function: not those of one inside it, nor those it may catch itself."""
    caught = node.body if isinstance(node, ast.Try) and node.handlers else []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef) or child in caught:
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            name = ast.unparse(error).rpartition(".")[2]
            yield from {name} & ERRORS
        yield from raised(child)


def unsaid(text):
    """(function, error) of each error that is raised and not in the section `Raises:`."""
    for function in functions(ast.parse(text), public_only=True):
        section = (ast.get_docstring(function) or "").partition("Raises:")[2]
        yield from ((function.name, name) for name in sorted(set(raised(function))) if name not in section)


def parameters(function):
    """How many a caller gives; `self` is none."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    stars = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
    return len(names[1:] if names[:1] in (["self"], ["cls"]) else names) + len(stars)


def bound_names(tree):
    """Names of variables, parameters and attributes that are set somewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def test_the_rules_see_what_they_are_for():
    text = '''
def loud(a, *, b=0, **c):
    """Do it."""
    raise DataError("no")
def said():
    """Do it.

    Raises:
        DataError: always.
    """
    raise errors.DataError("no")
def _private():
    raise DataError("no")
def outer():
    def inner():
        raise ValueError
class Thing:
    def method(self, a):
        if a:
            raise ValueError("no")
'''
    assert list(unsaid(text)) == [("loud", "DataError"), ("method", "ValueError")]
    assert [parameters(each) for each in functions(ast.parse(text), public_only=True)] == [3, 0, 0, 1]
    text = "def f(made, *, own: int):\n    if found := [kept for kept in made.given]:\n        own.given = [*found]"
    assert set(bound_names(ast.parse(text))) == EMPTY_NAMES
    text = "try:\n  import a as made\nexcept OSError as found:\n  match 1:\n    case [own, *kept]:\n      pass"
    assert set(bound_names(ast.parse(text))) == EMPTY_NAMES - {"given"}


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("cli/")])
def test_public_functions_say_what_they_raise(file):  # the docstring of a command is its --help
    assert list(unsaid(FILES[file])) == []


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_are_short(file):
    assert FILES[file].count("\n") <= LINES_OF_A_FILE
    for function in functions(ast.parse(FILES[file]), public_only=False):
        lines = function.end_lineno - function.lineno + 1
        assert lines <= LINES_OF_A_FUNCTION, function.name


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith(("cli/", "kernels/"))])
def test_parameter_lists_are_short(file):
    """Those of kernels are the GPU's; those of commands are their options, one each."""
    for function in functions(ast.parse(FILES[file]), public_only=False):
        assert parameters(function) <= PARAMETERS, function.name


def test_helpers_of_commands_have_short_parameter_lists():
    for file, text in FILES.items():
        if file.startswith("cli/"):
            for function in functions(ast.parse(text), public_only=False):
                shown = ast.unparse(function.args)
                is_command = "typer." in shown or "Option" in shown
                assert parameters(function) <= PARAMETERS or is_command, (file, function.name)


@pytest.mark.parametrize("file", FILES)
def test_names_say_what_a_thing_is(file):
    assert EMPTY_NAMES.isdisjoint(bound_names(ast.parse(FILES[file])))


def test_no_two_test_files_have_one_name():
    """Files of tests are no packages: of two with one name pytest collects neither."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
