"""Sizes that keep a reader's head above water, and what files and functions say of themselves."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted([*(REPOSITORY / "code").rglob("*.py"), *(REPOSITORY / "scripts").rglob("*.py")])
FILE_AIM, FILE_LIMIT = 250, 400
BODY_AIM, BODY_LIMIT = 40, 80
"""Lines. Above an aim is reported; above a limit, two ideas share a room."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return a file's path in the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def functions(tree: ast.AST) -> Iterator[Function]:
    """Give every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Give a module's public functions and classes, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    inner
                    for inner in node.body
                    if isinstance(inner, Function) and not inner.name.startswith("_")
                )


def overrides_a_library(function: Function) -> bool:
    """Say whether a method is marked as one that a library's class declares and documents."""
    return any(
        ast.unparse(decorator).split(".")[-1] == "override" for decorator in function.decorator_list
    )


def test_files_hold_one_idea() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sizes
    for name, lines in sizes.items():
        if lines > FILE_AIM:
            warnings.warn(f"{name}: {lines} lines, the aim is {FILE_AIM}", stacklevel=1)
    assert {name: lines for name, lines in sizes.items() if lines > FILE_LIMIT} == {}


def test_functions_hold_one_idea() -> None:
    sizes = {
        f"{name_of(path)}:{function.lineno} {function.name}": body_lines(function)
        for path in FILES
        for function in functions(parse(path))
    }
    for name, lines in sizes.items():
        if lines > BODY_AIM:
            warnings.warn(f"{name}: {lines} lines, the aim is {BODY_AIM}", stacklevel=1)
    assert {name: lines for name, lines in sizes.items() if lines > BODY_LIMIT} == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(parse(path)), (
        "a module docstring: what it is for, what it must not know"
    )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_names_are_documented(path: Path) -> None:
    without = [
        f"line {node.lineno}: {node.name}"
        for node in public(parse(path))
        if not ast.get_docstring(node)
        and not (isinstance(node, Function) and overrides_a_library(node))
    ]
    assert without == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_checked_by_assert(path: Path) -> None:
    # python -O drops asserts, and with them the check.
    lines = [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)]
    assert lines == []
