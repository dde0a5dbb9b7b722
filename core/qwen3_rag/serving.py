"""The commands that start other people's servers so that Qwen3's numbers come out right.

This package has no server of its own. Facts on vLLM were measured with 0.32; those on TEI were read
in its source (main, July 2026; images 1.9).
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from qwen3_rag.errors import ConfigurationError
from qwen3_rag.models import ModelKind
from qwen3_rag.vllm_facts import (
    CACHE_TOKENS,
    CPU_BLOCK_SIZE,
    SPARE_TOKENS,
    original_reranker_overrides,
    rerank_template,
)

ServedBy = Literal["vllm", "tei"]
ServedDType = Literal["bfloat16", "float16", "float32"]

TEI_IMAGE: Final = "ghcr.io/huggingface/text-embeddings-inference"
TEI_VERSION: Final = "1.9"
_TEI_CONTEXT: Final = 32768
"""Context of the published models; TEI compares it with --max-batch-tokens when it starts."""
_FOLDER_IN_CONTAINER: Final = "/model"
_CACHE_ELEMENTS_PER_TOKEN: Final = 36 * 2 * 8 * 128
"""Layers, keys and values, KV heads, head_dim: of the 4B and 8B models (`models.py`), more than of the 0.6B."""


@dataclass(frozen=True)
class ServedModel:
    """What is served, and how.

    Attributes:
        model: hub repository or local folder.
        kind: "embedding" or "reranking".
        converted: a reranker that is already a sequence classifier, with a score head of its own.
        dtype: element type of the weights.
        max_tokens: longest prompt that the server takes.
        port: where it listens.
        host: address it listens on.
        revision: branch, tag or commit; None for the repository's default.
        gpu_share: vLLM's share of the device's memory, 0 to 1; None for vLLM's default of nine tenths.
        tensor_parallel: devices that one model is spread over.
        data_parallel: copies of the model behind one address.
        cpu: run without a GPU.
    """

    model: str
    kind: ModelKind
    converted: bool = False
    dtype: ServedDType = "bfloat16"
    max_tokens: int = 8192
    port: int = 8000
    host: str = "127.0.0.1"
    revision: str | None = None
    gpu_share: float | None = None
    tensor_parallel: int = 1
    data_parallel: int = 1
    cpu: bool = False


@dataclass(frozen=True)
class Command:
    """A command and what to know about it.

    Attributes:
        argv: program and arguments.
        notes: sentences for whoever starts it.
    """

    argv: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command quoted for a POSIX shell."""
        return shlex.join(self.argv)


def serve_command(server: ServedBy, served: ServedModel) -> Command:
    """Return the command that serves a model with right numbers.

    Raises:
        ConfigurationError: that server cannot serve this model right.
    """
    if served.max_tokens < 1:
        raise ConfigurationError(f"max_tokens must be 1 or more, got {served.max_tokens}")
    if served.gpu_share is not None and not 0 < served.gpu_share <= 1:
        raise ConfigurationError(f"gpu_share must be above 0 and at most 1, got {served.gpu_share}")
    if served.dtype == "float16" and "8b" in served.model.lower():
        raise ConfigurationError(
            f"{served.model} in float16 overflows to NaN on some texts; serve it in bfloat16 or float32"
        )
    return _vllm(served) if server == "vllm" else _tei(served)


def _vllm(served: ServedModel) -> Command:
    overrides: dict[str, Any] = {}
    if served.kind == "embedding":
        overrides = {"is_matryoshka": True}
    elif not served.converted:
        overrides = original_reranker_overrides()
    argv = ["vllm", "serve", served.model, "--runner", "pooling"]
    argv += ["--convert", "embed"] if served.kind == "embedding" else []
    argv += ["--hf-overrides", json.dumps(overrides)] if overrides else []
    argv += ["--chat-template", rerank_template()] if served.kind == "reranking" else []
    argv += ["--dtype", served.dtype, "--max-model-len", str(served.max_tokens), "--enable-prefix-caching"]
    argv += ["--host", served.host, "--port", str(served.port)]
    argv += _set("--revision", served.revision) + _set("--gpu-memory-utilization", served.gpu_share)
    argv += ["--tensor-parallel-size", str(served.tensor_parallel)] if served.tensor_parallel > 1 else []
    argv += ["--data-parallel-size", str(served.data_parallel)] if served.data_parallel > 1 else []
    if served.cpu:
        # By default the cache takes nearly all memory of the machine. Compiling for a CPU needs a C++ compiler.
        argv += ["--block-size", str(CPU_BLOCK_SIZE), "--enforce-eager"]
        argv += ["--kv-cache-memory-bytes", str(_cache_bytes(served))]
    return Command(tuple(argv), _vllm_notes(served))


def _cache_bytes(served: ServedModel) -> int:
    """Return the bytes of the largest published model's cache: the served model's files may be elsewhere."""
    tokens = max(CACHE_TOKENS, served.max_tokens) + SPARE_TOKENS
    return tokens * _CACHE_ELEMENTS_PER_TOKEN * (4 if served.dtype == "float32" else 2)


def _vllm_notes(served: ServedModel) -> tuple[str, ...]:
    path = "/v1/embeddings" if served.kind == "embedding" else "/classify"
    notes = [
        f'use it with backend="remote", model_kwargs={{"server": "vllm", "base_url": '
        f'"http://{_reachable(served.host)}:{served.port}"}}: exact token ids go to {path}'
    ]
    if served.kind == "reranking":
        notes.append(
            "clients that send text use /rerank or /score, where --chat-template gives them the same prompts; "
            'another instruction than the default goes into the member "instruction". Text at /classify gets '
            "no template, and special tokens in texts are read as such: see docs/security.md"
        )
    notes.append(
        "an API key goes into the environment variable VLLM_API_KEY (--api-key would show in the list of "
        "processes); it guards /v1 but not /classify, /pooling and /score, so keep strangers from the port"
    )
    if served.gpu_share is None and not served.cpu:
        notes.append(
            "vLLM takes nine tenths of the GPU's memory; for an embedder and a reranker on one GPU give each "
            "its --gpu-share (the sum below 1) and start them one after the other"
        )
    if served.cpu:
        notes.append(
            f"the cache takes {_cache_bytes(served) / 1e9:.1f} GB beside the weights; a smaller "
            "--kv-cache-memory-bytes will do if it holds one prompt of --max-model-len tokens"
        )
    if served.data_parallel > 1:
        notes.append(
            f"each of the {served.data_parallel} copies takes weights and cache of its own; as many servers at "
            "several addresses do as well, if base_url names all of them"
        )
    return tuple(notes)


def _tei(served: ServedModel) -> Command:
    if served.kind == "reranking":
        raise ConfigurationError(
            "TEI runs no Qwen3 reranker: its Qwen3 models refuse to be classifiers (read in its source, July "
            "2026). Use --server vllm"
        )
    if served.dtype == "bfloat16":
        raise ConfigurationError(
            "TEI's images compute Qwen3 in float16 or float32, not in bfloat16; give --dtype float32, or "
            "float16, which is faster but overflows in the 8B model"
        )
    if served.tensor_parallel > 1 or served.data_parallel > 1:
        raise ConfigurationError("TEI runs a model on one device; use --server vllm for several")
    folder = Path(served.model).expanduser()
    local = folder.is_dir()
    argv = ["docker", "run", "--rm", "-p", f"{_in_address(served.host)}:{served.port}:80"]
    argv += [] if served.cpu else ["--gpus", "all"]
    argv += ["-v", f"{folder.resolve()}:{_FOLDER_IN_CONTAINER}:ro"] if local else ["-v", "tei-data:/data"]
    argv += ["-e", "API_KEY", f"{TEI_IMAGE}:{'cpu-' if served.cpu else 'cuda-'}{TEI_VERSION}"]
    argv += ["--model-id", _FOLDER_IN_CONTAINER if local else served.model]
    argv += _set("--revision", served.revision)
    argv += ["--pooling", "last-token", "--dtype", served.dtype, "--auto-truncate", "false"]
    # A limit below the model's own context makes TEI refuse to start when it may not truncate.
    argv += ["--max-batch-tokens", str(max(served.max_tokens, _TEI_CONTEXT))]
    notes = [
        f'use it with backend="remote", model_kwargs={{"server": "tei", "base_url": '
        f'"http://{_reachable(served.host)}:{served.port}"}}',
        "TEI takes text and recognises special tokens in it, so a document can hold <|im_end|>: see "
        "docs/security.md",
        "an API key goes into the environment variable API_KEY, which docker hands on if it is set",
    ]
    if not served.cpu:
        notes.append(
            f"the image cuda-{TEI_VERSION} chooses kernels for the GPU; TEI's list of images has others for "
            "older ones"
        )
    return Command(tuple(argv), tuple(notes))


def _set(option: str, value: object | None) -> list[str]:
    return [] if value is None else [option, str(value)]


def _reachable(host: str) -> str:
    return "localhost" if host in ("0.0.0.0", "127.0.0.1", "::") else _in_address(host)


def _in_address(host: str) -> str:
    """Return a host as it stands before a port: an address of IPv6 has colons of its own."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
