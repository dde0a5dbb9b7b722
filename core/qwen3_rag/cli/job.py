"""A long embedding job: check the input, compute the missing parts, assemble the output.

Every part is one call of the embedder for a fixed range of rows. So a resumed job gives the vectors of an
uninterrupted one: bit for bit with parts of up to 512 rows, which the embedder submits together; larger ones
may be batched differently, which changes results by rounding.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qwen3_rag.arguments import engine_settings
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.cli.assemble import assemble, check_output, is_assembled
from qwen3_rag.cli.parts import FORMAT, Part, Parts, parts_folder
from qwen3_rag.cli.rows import JSONL_ENDINGS, Rows
from qwen3_rag.cli.truncation import suppress_truncation_warnings
from qwen3_rag.embedder import Embedder
from qwen3_rag.errors import (
    ConfigurationError,
    NonFiniteOutputError,
    OutOfMemoryError,
    PromptTooLongError,
)
from qwen3_rag.opening import open_source
from qwen3_rag.roles import Role, prompt_before
from qwen3_rag.settings import EngineSettings
from qwen3_rag.usage import Usage
from qwen3_rag.vectors import Precision

_ROWS_AT_A_TIME: Final = 512
"""Queries that are tokenised together to find their lengths. Chosen, not tuned."""


@dataclass(frozen=True)
class Job:
    """What to embed, and how.

    Attributes:
        rows: the input.
        output: the file to make.
        role: "document" or "query".
        instruction: for queries; None for the model's own.
        precision: element type of the vectors.
        ranges: for int8 and uint8.
        chunk_size: rows of one part, the most that an interruption can cost.
        max_tokens: most tokens of one prompt.
        settings: whatever else changes the vectors, by name, for the manifest.
    """

    rows: Rows
    output: Path
    role: Role
    instruction: str | None
    precision: Precision
    ranges: NDArray[np.float32] | None
    chunk_size: int
    max_tokens: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What a job did. Tokens are of all rows, those of earlier runs included.

    `dimensions` is the length of vectors before their precision: of "binary" eight go into a byte.
    """

    output: str
    rows: int
    rows_of_earlier_runs: int
    dimensions: int
    precision: str
    bytes_per_row: int
    prompt_tokens: int
    computed_tokens: int
    reused_tokens: int
    truncated_texts: int
    seconds: float


def run_job(job: Job, embedder: Embedder, *, restart: bool, overwrite: bool, progress: bool) -> Summary:
    """Do a job, or the rest of it, which may be no more than to remove the parts of an output that is whole.

    Args:
        job: the work.
        embedder: not yet loaded; its weights are read only if something is left to compute.
        restart: throw away what an interrupted run left.
        overwrite: replace an output that is there.
        progress: show a bar on standard error.

    Raises:
        ConfigurationError: a row is broken, the output is there or a folder, or what an interrupted run left
            belongs to other settings or another input.
        PromptTooLongError: a query is too long; nothing was computed.
    """
    started = time.perf_counter()
    engine = engine_settings("embedding", embedder.arguments)
    check_output(job.output)
    if job.output.exists() and not overwrite and (restart or not parts_folder(job.output).is_dir()):
        raise _is_there_already(job.output)
    with Parts(job.output, restart=restart) as parts:
        count, schema, manifest = _survey(job)
        # An input without rows still has one part, which says how long its vectors would be.
        part_count = max(1, -(-count // job.chunk_size))
        missing = {number for number in range(part_count) if not parts.has(number)}
        # An output beside its parts may be whole: then the run that made it was killed before it removed them.
        may_be_whole = job.output.exists() and not overwrite
        if may_be_whole and (missing or not parts.are_of(manifest)):
            raise _is_there_already(job.output)
        parts.check(manifest)
        if missing:
            if job.role == "query":
                _check_lengths(job, engine)
            embedder.load()
            loaded = {"weights": _weights(engine), "computed in": _computed_in(embedder, engine)}
            parts.check(loaded)
            parts.begin({**manifest, **loaded})
            _compute(job, embedder, parts, missing, count, progress=progress)
        _check_unchanged(job, manifest)
        usage, bytes_per_row = _total(parts, part_count)
        if not may_be_whole:
            assemble(job.output, job.rows, count, parts, part_count, schema)
        elif not is_assembled(job.output, job.rows, count, parts, part_count, schema):
            raise _is_there_already(job.output)
        parts.finish()
    return Summary(
        output=str(job.output),
        rows=count,
        rows_of_earlier_runs=_rows_done(job, count, missing),
        dimensions=embedder.dimensions,
        precision=job.precision,
        bytes_per_row=bytes_per_row,
        prompt_tokens=usage.prompt_tokens,
        computed_tokens=usage.computed_tokens,
        reused_tokens=usage.reused_tokens,
        truncated_texts=usage.truncated_texts,
        seconds=round(time.perf_counter() - started, 3),
    )


def _is_there_already(output: Path) -> ConfigurationError:
    return ConfigurationError(f"{output} is there already; use --overwrite to replace it")


def _survey(job: Job) -> tuple[int, Any, dict[str, Any]]:
    """Check every row before the first is embedded.

    Returns:
        The number of rows, the output's schema if it is Parquet, and what identifies the job.
    """
    count = sum(1 for _ in job.rows.texts())
    schema = None
    if job.output.suffix.lower() != ".npy":
        job.rows.check_new_field()
    if job.output.suffix.lower() in JSONL_ENDINGS:
        job.rows.check_json()
    if job.output.suffix.lower() == ".parquet":
        from qwen3_rag.cli.parquet import output_schema

        schema = output_schema(job.rows)
    manifest = {
        "format": FORMAT,
        "input's rows": count,
        "input's SHA-256": _digest(job.rows.path),
        "role": job.role,
        "instruction": job.instruction,
        "precision": job.precision,
        "ranges": None if job.ranges is None else hashlib.sha256(job.ranges.tobytes()).hexdigest(),
        "chunk size": job.chunk_size,
        "max tokens": job.max_tokens,
        **job.settings,
    }
    return count, schema, manifest


def _check_lengths(job: Job, engine: EngineSettings) -> None:
    """Refuse queries that are too long before the first is embedded, at the cost of tokenising all once more.

    Later, finished parts would be lost: correcting a query changes the input, and parts belong to one input.
    """
    source = open_source(engine, max_tokens=job.max_tokens, parse_special_tokens=False)
    prompt = prompt_before(source.checkpoint, job.role, job.instruction)
    number = 0
    for texts in _chunks(job.rows.texts(), _ROWS_AT_A_TIME):
        whole = source.tokenizer.encode_texts(texts, prompt=prompt, max_tokens=sys.maxsize, is_query=True)
        for ids in whole.token_ids:
            number += 1
            if len(ids) > job.max_tokens:
                raise PromptTooLongError(
                    f"row {number} of {job.rows.path} needs {len(ids)} tokens with its instruction, more than "
                    f"--max-tokens {job.max_tokens}, and queries are never cut; shorten it or raise "
                    "--max-tokens (published models take 32768)"
                )


def _compute(
    job: Job, embedder: Embedder, parts: Parts, missing: set[int], count: int, *, progress: bool
) -> None:
    done = _rows_done(job, count, missing)
    with tqdm(total=count, initial=done, disable=not progress, unit="row", file=sys.stderr) as bar:
        for number, texts in enumerate(_chunks(job.rows.texts(), job.chunk_size)):
            if number in missing:
                with _naming_rows(number * job.chunk_size, len(texts), job.rows.path):
                    result = embedder.embed(
                        texts,
                        role=job.role,
                        instruction=job.instruction,
                        precision=job.precision,
                        ranges=job.ranges,
                    )
                parts.write(number, Part(result.vectors, result.usage))
                bar.update(len(texts))


def _rows_done(job: Job, count: int, missing: set[int]) -> int:
    """Return how many of `count` rows are in parts that are not missing."""
    return count - sum(min(job.chunk_size, count - number * job.chunk_size) for number in missing)


def _total(parts: Parts, part_count: int) -> tuple[Usage, int]:
    """Return the usage of all parts and the bytes of one row."""
    usage = Usage()
    for number in range(part_count):
        part = parts.read(number)
        usage += part.usage
    return usage, part.vectors.shape[1] * part.vectors.itemsize


def _check_unchanged(job: Job, manifest: dict[str, Any]) -> None:
    """Refuse to combine vectors with rows that were changed while the vectors were computed."""
    if _digest(job.rows.path) != manifest["input's SHA-256"]:
        raise ConfigurationError(f"{job.rows.path} was changed while it was read; use --restart")


def _chunks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    chunk = list(islice(texts, size))
    yield chunk
    while chunk := list(islice(texts, size)):
        yield chunk


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _weights(engine: EngineSettings) -> str:
    """Identify the checkpoint's files: by commit, or by configuration and the weight files' sizes and times."""
    folder = open_checkpoint(engine, weights=False).folder
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix == ".json":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            state = path.stat()
            digest.update(f"{path.name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _computed_in(embedder: Embedder, engine: EngineSettings) -> str:
    """Return the element type, or the requested one where the model is in another process."""
    return str(getattr(embedder.backend, "dtype", engine.dtype)).removeprefix("torch.")


@contextlib.contextmanager
def _naming_rows(first: int, count: int, path: Path) -> Iterator[None]:
    """Name the rows in errors, and leave truncated texts to the summary instead of a warning per part."""
    try:
        with suppress_truncation_warnings():
            yield
    except (PromptTooLongError, NonFiniteOutputError, OutOfMemoryError) as error:
        raise type(error)(f"rows {first + 1} to {first + count} of {path}: {error}") from error
