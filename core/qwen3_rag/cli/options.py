"""Options that several commands take, said once."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer


class DTypeName(str, Enum):
    """Element types of weights."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class HubName(str, Enum):
    """Where repositories come from."""

    huggingface = "huggingface"
    modelscope = "modelscope"


Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")]
Field = Annotated[str, typer.Option(help="Field of JSONL rows or column of Parquet files that holds the text.")]
Device = Annotated[
    str | None, typer.Option(help='"cuda", "cuda:1", "mps" or "cpu"; the best there is by default.')
]
DType = Annotated[
    DTypeName, typer.Option(help="Weights' type; auto is bfloat16 where the hardware computes it.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest prompt; longer documents are cut and counted.")]
TokenBudget = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of one batch; by default as free memory allows.")
]
Backend = Annotated[str, typer.Option(help="What runs the model; `qwen3-rag plugins` lists the names.")]
Hub = Annotated[HubName, typer.Option(help="Where the model's repository is.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model's repository.")]


def model_arguments(
    *,
    backend: str,
    device: str | None,
    dtype: DTypeName,
    max_tokens: int,
    token_budget: int | None,
    hub: HubName,
    revision: str | None,
) -> dict[str, Any]:
    """Return the keyword arguments that `Embedder` and `Reranker` have in common."""
    return {
        "backend": backend,
        "device": device,
        "dtype": dtype.value,
        "max_tokens": max_tokens,
        "token_budget": token_budget,
        "hub": hub.value,
        "revision": revision,
    }
