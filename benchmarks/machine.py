"""What a result was measured on: without it a number says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch
from qwen3_rag.backends.device.choice import computes_bfloat16

_FLAGS: Final = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"}
    | {"asimd", "bf16", "i8mm", "sve"}
)
"""Instruction sets that decide how fast matrices are multiplied."""

_PACKAGES: Final = (
    *("torch", "transformers", "tokenizers", "numpy", "sentence-transformers", "langchain-core"),
    *("langchain-huggingface", "llama-index-core", "llama-index-embeddings-huggingface"),
    *("llama-index-postprocessor-sbert-rerank", "haystack-ai", "openvino", "nncf", "flash-attn"),
)


def describe() -> dict[str, Any]:
    """Return processor, memory, GPUs, load, versions, git commit and date."""
    root = Path(__file__).parent.parent
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git(root, "rev-parse", "HEAD"),
        "changed_files": len(_git(root, "status", "--porcelain", "--untracked-files=no").splitlines()),
        "cpu": _cpu("model name") or platform.machine(),
        "cpu_flags": sorted(_FLAGS & set((_cpu("flags") or _cpu("Features")).split())),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "multiplies_bfloat16": computes_bfloat16(torch.device("cpu")),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average_at_start": os.getloadavg()[0],
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": _versions(_PACKAGES),
    }


def _git(root: Path, *command: str) -> str:
    try:
        done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""  # an unpacked archive
    return done.stdout.strip()


def _cpu(field: str) -> str:
    try:
        table = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in table if line.startswith(field)), "")


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
