"""MkDocs hooks: the site also shows files that are kept elsewhere in the repository.

A document links to its neighbours as they lie in the repository, so that the link works on GitHub.
Here those links are turned to the pages that the same files become.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

PAGES: Final = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh-CN.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "LICENSE": "LICENSE.txt",
}
"""File in the repository -> its place in the site."""

PICTURES: Final = "benchmarks/results/*.svg"
"""They keep their place."""

EXAMPLES: Final = "examples.md"
"""One page that shows all scripts of the folder `examples`."""

LINK: Final = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
FENCE: Final = re.compile(r"^(```.*?^```)$", re.M | re.S)
CELL_CODE: Final = re.compile(r"(?<=`)[^`\n]*\\\|[^`\n]*(?=`)")
"""Code in a table with a bar: GitHub wants it escaped, Python-Markdown would show the backslash."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that have no file in `docs`."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, EXAMPLES, content=_examples(root / "examples")))
    for picture in sorted(root.glob(PICTURES)):
        place = picture.relative_to(root).as_posix()
        files.append(File.generated(config, place, content=picture.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository to links between pages."""
    here = page.file.src_uri
    origin = next((source for source, name in PAGES.items() if name == here), f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[1]))
        return posixpath.relpath(_page_of(target), posixpath.dirname(here) or ".")

    pieces = FENCE.split(markdown)
    return "".join(p if p.startswith("```") else CELL_CODE.sub(_unescaped, LINK.sub(turned, p)) for p in pieces)


def _unescaped(match: re.Match[str]) -> str:
    return match[0].replace("\\|", "|")


def _page_of(path: str) -> str:
    """Return where a file of the repository is in the site; MkDocs warns of one that is not there."""
    if path.startswith("examples/"):
        return f"{EXAMPLES}#{Path(path).name.replace('.', '').lower()}"
    return EXAMPLES if path == "examples" else PAGES.get(path, path.removeprefix("docs/"))


def _examples(folder: Path) -> str:
    scripts = [
        f"## {script.name}\n\n```python\n{script.read_text(encoding='utf-8')}```\n"
        for script in sorted(folder.glob("*.py"))
    ]
    return "\n".join(["# Examples\n", "Scripts of the folder `examples` in the repository.\n", *scripts])
