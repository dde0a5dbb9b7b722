"""From package lists, manual pages, docstrings and dictionaries to (query, passage) pairs."""

from __future__ import annotations

import ast
import gzip
import re
import textwrap
import warnings
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from training.pairs import Pair

LONGEST: Final = 600
"""Characters of a passage, as in the demo's own corpus."""

_SHORTEST: Final = 60
"""Shorter passages say too little to be found."""

_SHORTEST_PROSE: Final = 100
"""Characters of a docstring beyond its first sentence; most are lists of parameters only."""

_BOILERPLATE: Final = re.compile(r"^(this|the) .{0,30}?package", re.IGNORECASE)
_COMPONENT: Final = re.compile(
    r"\s*[(\[-]*\s*\b(documentation|development files?|headers?|debug symbols|data files?|common files|"
    r"shared library|runtime|static library|examples|transitional package|dummy package)\b.*$",
    re.IGNORECASE,
)
_ROLES: Final = re.compile(r":(?:\w+:)*`~?!?([^`<]*?)(?:\s*<[^`>]*>)?`")
_SENTENCE: Final = re.compile(r"(.+?[.!?])(?=\s+[A-Z*:`]|\s*$)", re.DOTALL)


def source_packages(packages: str) -> dict[str, str]:
    """Return binary package -> source package from the text of a `Packages` list."""
    sources = {}
    for record in packages.split("\n\n"):
        name = re.search(r"^Package: (\S+)", record, re.MULTILINE)
        source = re.search(r"^Source: (\S+)", record, re.MULTILINE)
        if name:
            sources[name[1]] = source[1] if source else name[1]
    return sources


def debian_pairs(translations: str, source_of: dict[str, str]) -> Iterator[Pair]:
    """Yield synopsis -> long description of packages, without what says which part of a source this is."""
    for record in translations.split("\n\n"):
        match = re.match(r"Package: (\S+)\n.*?Description-en: (.*?)\n(.*)", record, re.DOTALL)
        if not match or match[1] not in source_of:
            continue
        body = "\n".join(line[1:] for line in match[3].split("\n"))
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\.\n", body)]
        kept = [part for part in paragraphs if not _BOILERPLATE.match(part)]
        query = _COMPONENT.sub("", match[2]).strip(" -:,")
        passage = "\n".join(kept)
        if len(passage) >= _SHORTEST and len(query) >= 10:
            yield _pair(query, f"{match[1]}: {passage}", "debian", source_of[match[1]])


def manual_pairs(folder: Path, source: str) -> Iterator[Pair]:
    """Yield what a manual page's NAME section says -> its name and the beginning of its description."""
    for path in sorted(folder.glob("usr/share/man/man*/*.gz")):
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        except OSError:  # links to pages of other packages
            continue
        sections = _roff_sections(text)
        name, dash, query = sections.get("NAME", "").partition(" - ")
        body = sections.get("DESCRIPTION", "")
        if dash and len(query) >= 10 and len(body) >= _SHORTEST:
            yield _pair(query, f"{name.strip()[:60]}: {body}", "manual", source)


def docstring_pairs(folder: Path, source: str) -> Iterator[Pair]:
    """Yield a docstring's first sentence -> name and the rest, read from Python files never executed."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.parts
        if any(part in ("test", "tests", "testing", "_vendor", "idlelib") for part in parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # OSError: links to files of other packages
            continue
        yield from _docstrings(tree, _module_name(path), source)


def _module_name(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    for root in ("dist-packages", "python3.11"):
        if root in parts:
            parts = parts[parts.index(root) + 1 :]
    return ".".join(parts[-4:]).removesuffix(".__init__")


def _docstrings(node: ast.AST, name: str, source: str) -> Iterator[Pair]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first, *rest = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
        query, prose = " ".join(first.split()), "\n".join(takewhile(_is_prose, rest))
        if 15 <= len(query) <= 200 and " " in query and len(prose) >= _SHORTEST_PROSE:
            yield _pair(query, f"{name}: {_plain(prose)}", "docstring", source)
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            child_name = getattr(child, "name", "_")
            if not child_name.startswith("_"):
                yield from _docstrings(child, f"{name}.{child_name}", source)


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph tells something, rather than lists parameters, fields or an example."""
    return not re.match(r"\s*([:@>*|=]|\.\.|-{3}|\w[\w ]*\n\s*[-=~]{3}|\w+:\s*\n|\w+::?\s*$)", paragraph)


def python_documentation_pairs(folder: Path) -> Iterator[Pair]:
    """Yield pairs from the Python manual: heading -> text below it, a function's first sentence -> entry."""
    root = next(folder.rglob("_sources"))
    for path in sorted(root.rglob("*.rst.txt")):
        module = path.name.removesuffix(".rst.txt")
        if module == "changelog" or path.parent.name == "whatsnew":
            continue
        text = path.read_text(encoding="utf-8")
        for heading, body in re.findall(
            r"\n\n(\S[^\n]+)\n[-=~^\"*]{4,}\n\n((?:[^\n].*\n|\n(?!\S+\n[-=~]))+)", text
        ):
            paragraphs = [
                part for part in body.split("\n\n") if part.strip() and not part.startswith((" ", ".."))
            ]
            passage = _plain("\n".join(paragraphs[:4]))
            if len(heading) >= 10 and len(passage) >= _SHORTEST:
                yield _pair(_plain(heading), passage, "python-manual", f"python/{module}")
        for signature, body in re.findall(
            r"\n *\.\. (?:function|method|class|decorator|data|module):: ([^\n]+)\n((?:\n| +[^\n]*\n)+)", text
        ):
            entry = textwrap.dedent(body).split("\n\n.. ")[0].strip()
            sentence = _SENTENCE.match(entry)
            if sentence and len(entry) >= _SHORTEST and not entry.startswith((":", "..")):
                query = _plain(sentence[1])
                name = signature.split("(")[0]
                qualified = name if "." in name else f"{module}.{name}"
                rest = entry[sentence.end() :].strip()
                yield _pair(
                    query,
                    f"{qualified}: {_plain(rest if len(rest) > 80 else entry)}",
                    "python-manual",
                    f"python/{module}",
                )


def wordnet_pairs(folder: Path) -> Iterator[Pair]:
    """Yield pairs from WordNet: a definition -> words with gloss, and a word -> the same."""
    for name in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"usr/share/wordnet/data.{name}").read_text(encoding="latin-1").split("\n"):
            fields, bar, gloss = line.partition(" | ")
            if not bar or line.startswith(" "):
                continue
            parts = fields.split()
            words = [
                re.sub(r"\(\w+\)", "", word).replace("_", " ")
                for word in parts[4 : 4 + 2 * int(parts[3], 16) : 2]
            ]
            definition = gloss.split('; "')[0].strip()
            yield Pair(
                definition.split(";")[0],
                f"{', '.join(words)}: {gloss.strip()}",
                "wordnet",
                f"wordnet/{words[0]}",
            )
            yield Pair(words[-1], f"{words[0]}: {gloss.strip()}", "term", f"wordnet/{words[0]}")


def dictionary_pairs(folder: Path, kind: str) -> Iterator[Pair]:
    """Yield headword -> article of a dictionary in dictd's format."""
    path = next(folder.rglob("*.dict.dz"))
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        term = head.split("\\")[0].strip(" ,")
        body = re.sub(r"\[[^\]]{0,30}\]|[{}]|<[^>]{0,30}>|/[^/\n]{1,30}/|\(\d{4}-\d\d-\d\d\)", "", body)
        body = " ".join(body.split())
        if 3 <= len(term) <= 60 and len(body) >= _SHORTEST:
            yield _pair(term, f"{term}: {body}", "term", f"{kind}/{term}")
            sentence = _SENTENCE.match(body)
            if sentence and 30 <= len(sentence[1]) <= 200:
                yield _pair(
                    sentence[1].removeprefix("1. "),
                    f"{term}: {body[sentence.end() :] or body}",
                    kind,
                    f"{kind}/{term}",
                )


def _pair(query: str, passage: str, kind: str, source: str) -> Pair:
    query = " ".join(query.split()).strip().removesuffix(".")
    if len(passage) > LONGEST:
        passage = passage[:LONGEST].rsplit(" ", 1)[0]
    return Pair(query[:200], passage.strip(), kind, source)


def _plain(text: str) -> str:
    """Return reStructuredText without its marks."""
    return re.sub(r"``|\*\*?(?=\S)|(?<=\S)\*\*?|\|", "", _ROLES.sub(r"\1", text)).strip()


def _roff_sections(text: str) -> dict[str, str]:
    """Return the running text of a manual page's sections, by upper-case title."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        match = re.match(r"[.'](\w+)\s*(.*)", line)
        if match and match[1] in ("SH", "Sh"):
            lines = sections.setdefault(match[2].strip(' "').upper(), [])
        elif match and match[1] in (
            "B",
            "I",
            "BR",
            "IR",
            "RB",
            "RI",
            "BI",
            "IB",
            "Nm",
            "Fn",
            "Xr",
            "Ar",
            "Fl",
            "Fa",
            "Pa",
        ):
            lines.append(match[2].replace('"', ""))
        elif match and match[1] == "Nd":
            lines.append("\\- " + match[2])
        elif not line.startswith((".", "'")):
            lines.append(line)
    return {title: _unescape(" ".join(part)) for title, part in sections.items()}


def _unescape(text: str) -> str:
    text = re.sub(r"\\f(\[[^\]]*\]|\(..|.)|\\s[-+]?\d|\\[&|^/%:]|\\\".*?(?=\n|$)", "", text)
    text = re.sub(r"\\\(em|\\\(en|\\-|\\\(mi", "-", text).replace("\\(aq", "'").replace("\\e", "\\")
    return " ".join(re.sub(r"\\\(..|\\\*\(..|\\\*.", "", text).replace("\\", "").split())
