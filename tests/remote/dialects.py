"""Every server that the remote backend speaks with, answering what a model computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
from server import Answer
from tokenizers import Tokenizer

Make = Callable[[models.Compute, Tokenizer], Answer]

EMBEDDERS: dict[str, Make] = {
    "vllm": lambda compute, _: models.vllm(compute),
    "tei": models.tei,
    "openai": models.openai,
    "dashscope": models.dashscope,
}
"""By `server=`."""

RERANKERS: dict[str, tuple[dict[str, Any], Make]] = {
    "vllm": ({"server": "vllm"}, lambda compute, _: models.vllm(compute)),
    "vllm too old for use_activation": (
        {"server": "vllm"},
        lambda compute, _: models.vllm(compute, knows_use_activation=False),
    ),
    "tei": ({"server": "tei", "template": "client"}, models.tei),
    "tei that answers probabilities": (
        {"server": "tei", "template": "client"},
        lambda compute, tokenizer: models.tei(compute, tokenizer, knows_raw_scores=False),
    ),
    "cohere": (
        {"server": "cohere", "template": "client"},
        lambda compute, tokenizer: models.relevance(compute, tokenizer, path="/v2/rerank"),
    ),
    "jina that answers log-odds": (
        {"server": "jina", "template": "client", "scores": "log_odds"},
        lambda compute, tokenizer: models.relevance(compute, tokenizer, path="/v1/rerank", log_odds=True),
    ),
    "jina that has the template": (
        {"server": "jina", "template": "server", "instruction_field": "instruct", "path": "/v1/reranks"},
        lambda compute, tokenizer: models.relevance(compute, tokenizer, path="/v1/reranks", field="instruct"),
    ),
    "jina, answered by SGLang": (
        {"server": "jina", "template": "server", "instruction_field": "instruct"},
        models.sglang,
    ),
    "dashscope": ({"server": "dashscope"}, models.dashscope),
    "dashscope's flat API": ({"server": "dashscope", "served_model": "qwen3-rerank"}, models.dashscope),
}
"""Options of the remote backend, and the server."""
