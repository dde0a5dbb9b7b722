"""Passages to search: the documentation of the user's own Python, or files of theirs."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from qwen3_rag.errors import ConfigurationError

LONGEST: Final = 600
"""Characters of a passage: about 150 tokens, and readable at a glance. Chosen, not tuned."""

_SKIPPED_MODULES: Final = frozenset(
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
"""In characters; shorter ones ("Return self.") answer no question. Chosen, not tuned."""
_SUFFIXES: Final = (".txt", ".md", ".py")
_SKIPPED_FOLDERS: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


def standard_library_passages(limit: int | None = None) -> list[str]:
    """Return documentation strings of the standard library, read from its source and never executed.

    Modules take turns: first what each says of itself, then the first class or function of each,
    and so on, so that a small limit still covers all subjects. The order is always the same. Without
    a limit it is all of them, about 4,100.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    return list(islice(_take_turns(_documented(path, name) for path, name in _modules(root)), limit))


def file_passages(path: Path, limit: int, *, report: Callable[[str], None] = lambda _: None) -> list[str]:
    """Return the paragraphs (split at blank lines) of a file, or of all text files in a folder.

    In a folder, files that are not UTF-8 are skipped, and so are hidden folders, virtual environments and
    folders of installed packages.

    Args:
        path: file or folder.
        limit: most passages.
        report: is told of files that are left out.

    Raises:
        ConfigurationError: there is no such file or folder, there is nothing to read in it, or it is a file
            that is not UTF-8.
    """
    if path.is_dir():
        texts = _texts(path, report)
    elif path.is_file():
        texts = iter([(path.name, _read(path))])
    else:
        raise ConfigurationError(f"no such file or folder: {path}")
    paragraphs = (cut(f"{name}: {paragraph}") for name, text in texts for paragraph in _paragraphs(text))
    found = list(islice(paragraphs, limit))
    if not found:
        raise ConfigurationError(f"{path} holds no text; the demo reads {', '.join(_SUFFIXES)} files")
    return found


def cut(text: str) -> str:
    """Return a text's beginning, at most LONGEST characters (and an ellipsis), cut at a paragraph or a word."""
    if len(text) <= LONGEST:
        return text
    start = text[:LONGEST]
    paragraph = start.rfind("\n\n")
    if paragraph > LONGEST // 2:
        return start[:paragraph]
    return start[: max(start.rfind(" "), start.rfind("\n"), LONGEST // 2)] + " …"


def _texts(folder: Path, report: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Yield names and texts of a folder's files, always in the same order."""
    for file in sorted(_files(folder)):
        try:
            yield file.name, _read(file)
        except ConfigurationError as error:
            report(f"left out: {error}")


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _is_read(Path(here, name))]
        yield from (Path(here, name) for name in names if Path(name).suffix in _SUFFIXES)


def _is_read(folder: Path) -> bool:
    return (
        not folder.name.startswith(".")
        and folder.name not in _SKIPPED_FOLDERS
        and not (folder / "pyvenv.cfg").exists()
    )


def _read(file: Path) -> str:
    """Return a file's text, or raise ConfigurationError."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8: {error}; save it as UTF-8") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error


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
        if name.startswith("_") or name in _SKIPPED_MODULES:
            continue
        if (root / f"{name}.py").is_file():
            yield root / f"{name}.py", name
        for path in sorted((root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not any(part in _SKIPPED_MODULES or part.startswith("_") for part in parts):
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


def _take_turns(sources: Iterable[Iterator[str]]) -> Iterator[str]:
    """Yield the first passage of each source, then the second of each; reads no source before its turn."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        for passage in islice(source, 1):
            yield passage
            waiting.append(source)
