"""Rows of a text or JSONL file, read as a stream and never changed."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from qwen3_rag.errors import ConfigurationError

EMBEDDING_FIELD: Final = "embedding"
"""Name of the field or column that vectors go to."""

JSONL_ENDINGS: Final = (".jsonl", ".ndjson")
"""Suffixes of files with one JSON object per line."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Rows(ABC):
    """The rows of one input file. Every method reads the file anew.

    Args:
        path: the file.
        field: where a row keeps its text.
    """

    def __init__(self, path: Path, field: str) -> None:
        self.path = path
        self.field = field

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Yield each row's text.

        Raises:
            ConfigurationError: a row is broken; the message names it, counting from 1.
        """

    @abstractmethod
    def open_json(self) -> Iterator[str]:
        """Yield each row as a JSON object that lacks its closing brace."""

    @abstractmethod
    def check_new_field(self) -> None:
        """Raise ConfigurationError if a row has an `embedding` already."""

    def check_json(self) -> None:  # noqa: B027 - text and JSON always can
        """Raise ConfigurationError if a row cannot be written as JSON."""

    def row_error(self, number: int, problem: str) -> ConfigurationError:
        """Return the error for row `number`, counting from 0."""
        return ConfigurationError(f"row {number + 1} of {self.path} {problem}")


class TextRows(Rows):
    """One text per line. Only the newline (or CR and newline) at a line's end is taken off."""

    def texts(self) -> Iterator[str]:
        for number, line in enumerate(_lines(self.path)):
            yield decode_line(self, number, line)

    def open_json(self) -> Iterator[str]:
        for text in self.texts():
            yield f"{{{json.dumps(self.field)}: {json.dumps(text, ensure_ascii=False)}"

    def check_new_field(self) -> None:
        if self.field == EMBEDDING_FIELD:
            raise ConfigurationError(f'--field is "{EMBEDDING_FIELD}", which is where the vectors go')


class JsonlRows(Rows):
    """One JSON object per line. Blank lines are allowed at the end only: a row's number is its line's."""

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a dict, its text checked."""
        for record, _ in self._parsed():
            yield record

    def texts(self) -> Iterator[str]:
        for record, _ in self._parsed():
            yield record[self.field]

    def open_json(self) -> Iterator[str]:
        for _, line in self._parsed():
            # The line itself, not a serialised record: numbers, spacing and repeated keys stay as they are.
            yield line.rstrip()[:-1].rstrip()

    def check_new_field(self) -> None:
        for number, (record, _) in enumerate(self._parsed()):
            if EMBEDDING_FIELD in record:
                raise self.row_error(number, f'already has a field "{EMBEDDING_FIELD}"')

    def _parsed(self) -> Iterator[tuple[dict[str, Any], str]]:
        blank: int | None = None
        for number, raw in enumerate(_lines(self.path)):
            line = decode_line(self, number, raw)
            if not line.strip():
                blank = number if blank is None else blank
                continue
            if blank is not None:
                raise self.row_error(blank, "is blank, which only lines at the end may be")
            try:
                record = json.loads(line)
            except ValueError as error:
                raise self.row_error(number, f"is not JSON: {error}") from error
            except RecursionError as error:
                raise self.row_error(number, "is nested too deeply") from error
            if not isinstance(record, dict):
                raise self.row_error(number, f"is not a JSON object but a {type(record).__name__}")
            if self.field not in record:
                have = ", ".join(map(repr, record)) or "none"
                raise self.row_error(
                    number, f"has no field {self.field!r}; it has: {have} (choose with --field)"
                )
            text = record[self.field]
            if not isinstance(text, str):
                shown = "null" if text is None else f"{text!r:.40}"
                raise self.row_error(number, f"has {shown} in {self.field!r}, not a string")
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise self.row_error(
                        number, f"holds a lone surrogate at character {error.start}"
                    ) from error
            yield record, line


def decode_line(rows: Rows, number: int, line: bytes) -> str:
    """Return a line's text without its newline, and the first line's without a byte order mark."""
    line = line.removesuffix(b"\n").removesuffix(b"\r") if line.endswith(b"\n") else line
    try:
        return (line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line).decode()
    except UnicodeDecodeError as error:
        raise rows.row_error(number, f"is not UTF-8: {error.reason} at byte {error.start}") from error


def open_rows(path: Path, field: str) -> Rows:
    """Return the rows of a file, by its ending.

    Raises:
        ConfigurationError: there is no such file, or its format is not known.
        MissingExtraError: it is a Parquet file and pyarrow is not installed.
    """
    if not path.is_file():
        raise ConfigurationError(f"no such file: {path}")
    ending = path.suffix.lower()
    if ending == ".txt":
        return TextRows(path, field)
    if ending in JSONL_ENDINGS:
        return JsonlRows(path, field)
    if ending == ".parquet":
        from qwen3_rag.cli.parquet import ParquetRows

        return ParquetRows(path, field)
    raise ConfigurationError(f"cannot read {path}: inputs end in .txt, .jsonl, .ndjson or .parquet")


def _lines(path: Path) -> Iterable[bytes]:
    """Split at newlines only, not at the other characters that Unicode counts as line ends."""
    with path.open("rb") as file:
        yield from file
