"""The layers: imports go one way, and what must start at once starts without heavy libraries."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = REPOSITORY / "code"
LAYERS: list[list[str]] = [
    ["text", "paths", "errors", "environment_variables", "cli", "files", "packages"],
    ["lifeline", "machine"],
    ["config"],
    ["data"],
    ["score"],
    ["models"],
    ["generate"],
    ["train"],
    ["record", "experiment"],
    ["batch", "report"],
]
"""Modules and packages of dialsum; each imports only from its own row and those above it."""

START_AT_ONCE = [
    "text",
    "errors",
    "environment_variables",
    "cli",
    "files",
    "paths",
    "lifeline",
    "machine",
    "config",
    "data",
    "score",
    "record",
    "batch",
    "report",
]
"""What the runner and the command line need before any experiment starts."""

HEAVY = [
    "torch",
    "transformers",
    "pandas",
    "datasets",
    "peft",
    "accelerate",
    "bitsandbytes",
    "wandb",
    "ray",
]


@cache
def modules() -> dict[str, Path]:
    """Return every module of dialsum by its dotted name."""
    found = {}
    for path in sorted((CODE / "dialsum").rglob("*.py")):
        parts = path.relative_to(CODE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Give line and dotted name of everything that a file imports, inside functions too.

    Imports under `if TYPE_CHECKING:` count: a layer must not even know the names of a later one.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in modules() else base


def layer_of(module: str) -> int | None:
    """Return the row of a module of dialsum; None for the package itself."""
    name = module.removeprefix("dialsum").lstrip(".").split(".")[0]
    rows = [row for row, names in enumerate(LAYERS) if name in names]
    return rows[0] if rows else None


def test_every_module_has_a_layer() -> None:
    without = [name for name in modules() if name != "dialsum" and layer_of(name) is None]
    assert without == [], "give each a row in LAYERS"


def test_imports_go_one_way() -> None:
    wrong = []
    for name, path in modules().items():
        own = layer_of(name)
        for line, imported in imports_of(path):
            if not imported.startswith("dialsum.") or own is None:
                continue
            other = layer_of(imported)
            if other is None or other > own:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports {imported}")
    assert wrong == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {imported for _, imported in imports_of(path) if imported in modules()} - {name}
        for name, path in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_imports_are_absolute_and_never_of_scripts_or_utils() -> None:
    outside = [path.stem for path in CODE.glob("*.py")] + ["utils", "scripts", "tests"]
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {imported}"
        for path in modules().values()
        for line, imported in imports_of(path)
        if imported.startswith(".") or imported.split(".")[0] in outside
    ]
    assert wrong == []


def test_code_is_no_package() -> None:
    # The standard library's `code` would be shadowed, and pdb with it.
    assert not (CODE / "__init__.py").exists()


def test_utils_hold_no_logic() -> None:
    wrong = [
        f"{path.name}: {type(node).__name__} {getattr(node, 'name', '')}"
        for path in sorted((CODE / "utils").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While)
    ]
    assert wrong == []


def in_layers(names: list[str]) -> list[str]:
    """Return the modules of the given rows' names."""
    return [name for name in modules() if name.partition(".")[2].split(".")[0] in names]


def test_what_starts_at_once_starts_no_heavy_library() -> None:
    # One process imports all, and says after each what heavy library it brought along.
    code = (
        "import importlib, sys\n"
        f"heavy = {HEAVY!r}\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    brought = [one for one in heavy if one in sys.modules]\n"
        "    if brought:\n"
        "        sys.exit(f'{name} imports {brought}')\n"
        "print(len(sys.argv) - 1)\n"
    )
    names = in_layers(START_AT_ONCE)
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(CODE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(names))]
    assert len(names) > 20


def test_heavy_libraries_are_imported_inside_functions_there() -> None:
    wrong = []
    for name in in_layers(START_AT_ONCE):
        tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                roots = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                )
                wrong += [f"{name}: {root}" for root in roots if root.split(".")[0] in HEAVY]
    assert wrong == []
