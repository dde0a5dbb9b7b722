"""Passages to search: the documentation of the user's own Python, or files of theirs."""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final

from qwen3_rag.errors import ConfigurationError

LONGEST: Final = 600
"""Characters of a passage: about 150 tokens, and readable at a glance."""

_SKIPPED: Final = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "turtledemo",
        "encodings",
        "ensurepip",
        "pydoc_data",
        "distutils",
        "site-packages",
    }
)
_SHORTEST_DOCSTRING: Final = 40
"""Shorter ones ("Return self.") answer no question."""
_READ: Final = (".txt", ".md", ".py")


def standard_library_passages(limit: int) -> list[str]:
    """Return documentation strings of the standard library, read from its source and never executed.

    Modules take turns: first what each says of itself, then the first class or function of each,
    and so on, so that a small limit still covers all subjects. The order is always the same.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    return list(islice(_take_turns([_documented(path, name) for path, name in _modules(root)]), limit))


def file_passages(path: Path, limit: int) -> list[str]:
    """Return the paragraphs (split at blank lines) of a file, or of all text files in a folder.

    Raises:
        ConfigurationError: there is no such file or folder, nothing to read in it, or a file is not UTF-8.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _READ and file.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise ConfigurationError(f"no such file or folder: {path}")
    paragraphs = (cut(f"{file.name}: {paragraph}") for file in files for paragraph in _paragraphs(_read(file)))
    found = list(islice(paragraphs, limit))
    if not found:
        raise ConfigurationError(f"{path} holds no text; the demo reads {', '.join(_READ)} files")
    return found


def cut(text: str) -> str:
    """Return a text's beginning, at most LONGEST characters, ending with a paragraph or a word."""
    if len(text) <= LONGEST:
        return text
    start = text[:LONGEST]
    paragraph = start.rfind("\n\n")
    if paragraph > LONGEST // 2:
        return start[:paragraph]
    return start[: max(start.rfind(" "), start.rfind("\n"), LONGEST // 2)] + " …"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8: {error}") from error


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield "\n".join(lines)
            lines = []


def _modules(root: Path) -> Iterator[tuple[Path, str]]:
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED:
            continue
        if (root / f"{name}.py").is_file():
            yield root / f"{name}.py", name
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not any(part in _SKIPPED or part.startswith("_") for part in parts):
                yield path, ".".join(parts)


def _documented(path: Path, module: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sources with outdated escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    yield from _docstrings(tree, module)


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring and len(docstring) >= _SHORTEST_DOCSTRING:
        yield cut(f"{name}: {docstring}")
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in node.body:
            if isinstance(
                child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and not child.name.startswith("_"):
                yield from _docstrings(child, f"{name}.{child.name}")


def _take_turns(sources: list[Iterator[str]]) -> Iterator[str]:
    for turn in zip_longest(*sources):
        yield from (passage for passage in turn if passage is not None)
