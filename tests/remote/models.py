"""What loopback servers answer with: a cheap function of ids, or a small checkpoint."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import RERANK_PREFIX, RERANK_SUFFIX
from qwen3_rag import Embedder, Reranker
from qwen3_rag.prompts import EmbeddingWords
from qwen3_rag.tokens import Prompt
from server import Answer, Reply, Request
from tokenizers import Tokenizer

Compute = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
"""Token ids to hidden states, shape (n, hidden), or to log-odds, shape (n,)."""


def digest(hidden: int = 64) -> Compute:
    """A function of ids that no two texts share, in place of a model."""

    def compute(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        places = np.arange(1, hidden + 1)
        return np.array(
            [np.sin(np.outer(np.arange(1, len(row) + 1) * row, places)).sum(axis=0) for row in rows], np.float32
        )

    return compute


def log_odds_digest(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Log-odds in place of a reranker's."""
    return digest(1)(rows)[:, 0]


def checkpoint(component: Embedder | Reranker) -> Compute:
    """The Transformers backend of a loaded component."""
    backend = component.load().backend
    assert backend is not None

    def compute(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        words = EmbeddingWords("", "", is_query=False)
        return backend.run([Prompt(np.array(row, np.int32), words) for row in rows]).values

    return compute


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)


def normalised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def vllm(compute: Compute, *, knows_use_activation: bool = True) -> Answer:
    def answer(request: Request) -> Reply:
        rows = request.body["input"]
        if not all(isinstance(token, int) for row in rows for token in row):
            return Reply({"error": {"message": "ids expected"}}, status=400)
        values = compute(rows)
        usage = {"prompt_tokens": sum(map(len, rows)), "total_tokens": sum(map(len, rows))}
        if request.path == "/v1/embeddings":
            if request.body["encoding_format"] != "base64":
                return Reply({"error": {"message": "base64 expected"}}, status=400)
            texts = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in normalised(values)]
            data = [{"index": i, "object": "embedding", "embedding": text} for i, text in enumerate(texts)]
            return Reply({"object": "list", "data": data, "usage": usage})
        if request.path == "/classify":
            raw = request.body.get("use_activation") is False and knows_use_activation
            probs = values if raw else sigmoid(values)
            data = [
                {"index": i, "label": "LABEL_0", "probs": [float(p)], "num_classes": 1}
                for i, p in enumerate(probs)
            ]
            return Reply({"object": "list", "data": data, "usage": usage})
        return Reply({"detail": "Not Found"}, status=404)

    return answer


def tei(compute: Compute, tokenizer: Tokenizer, *, knows_raw_scores: bool = True) -> Answer:
    """TEI's form; without `knows_raw_scores` as llama.cpp answers it, always probabilities."""

    def answer(request: Request) -> Reply:
        body = request.body
        if request.path == "/embed" and body["truncate"] is False and body["normalize"] is True:
            if len(body["inputs"]) > 32:
                return Reply(
                    {"error": "batch size > maximum allowed batch size", "error_type": "Validation"}, 422
                )
            return Reply(normalised(compute(_encoded(tokenizer, body["inputs"]))).tolist())
        if request.path == "/rerank" and body["truncate"] is False:
            values = compute(_pairs(tokenizer, body["query"], body["texts"]))
            if not (body["raw_scores"] and knows_raw_scores):
                values = sigmoid(values)
            ranks = [{"index": i, "score": float(v)} for i, v in enumerate(values)]
            return Reply(sorted(ranks, key=lambda rank: -rank["score"]))
        return Reply({"error": "unexpected", "error_type": "Validation"}, status=422)

    return answer


def openai(compute: Compute, tokenizer: Tokenizer) -> Answer:
    def answer(request: Request) -> Reply:
        if request.path != "/v1/embeddings" or set(request.body) != {"model", "input"}:
            return Reply(
                {"error": {"message": f"unexpected {request.path} {sorted(request.body)}"}}, status=400
            )
        rows = normalised(compute(_encoded(tokenizer, request.body["input"]))).tolist()
        data = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
        return Reply({"data": data[::-1], "model": request.body["model"]})

    return answer


def relevance(
    compute: Compute, tokenizer: Tokenizer, *, path: str, log_odds: bool = False, field: str | None = None
) -> Answer:
    """Cohere's and Jina's form. With `field`, the server renders the template; the instruction is there."""

    def answer(request: Request) -> Reply:
        body = request.body
        if request.path != path or body["top_n"] != len(body["documents"]):
            return Reply({"message": f"unexpected {request.path}"}, status=400)
        if field is None:
            values = compute(_pairs(tokenizer, body["query"], body["documents"]))
        else:
            values = compute(_rendered(tokenizer, body[field], body["query"], body["documents"]))
        scores = values if log_odds else sigmoid(values)
        ranks = [{"index": i, "relevance_score": float(s)} for i, s in enumerate(scores)]
        return Reply({"id": "x", "results": sorted(ranks, key=lambda rank: -rank["relevance_score"])})

    return answer


def sglang(compute: Compute, tokenizer: Tokenizer) -> Answer:
    """SGLang's form, by its sources: a bare list, sorted. It renders the template; `instruct` is optional."""

    def answer(request: Request) -> Reply:
        body = request.body
        if request.path != "/v1/rerank":
            return Reply({"message": f"unexpected {request.path}"}, status=404)
        documents = body["documents"]
        values = sigmoid(compute(_rendered(tokenizer, body["instruct"], body["query"], documents)))
        ranks = [
            {"score": float(score), "document": document, "index": i, "meta_info": {"id": str(i)}}
            for i, (score, document) in enumerate(zip(values, documents, strict=True))
        ]
        return Reply(sorted(ranks, key=lambda rank: -rank["score"])[: body["top_n"]])

    return answer


def dashscope(compute: Compute, tokenizer: Tokenizer) -> Answer:
    def ranks(given: dict[str, Any], instruction: str) -> list[dict[str, Any]]:
        values = compute(_rendered(tokenizer, instruction, given["query"], given["documents"]))
        items = [{"index": i, "relevance_score": float(s)} for i, s in enumerate(sigmoid(values))]
        return sorted(items, key=lambda item: -item["relevance_score"])

    def answer(request: Request) -> Reply:
        body = request.body
        if body["model"] == "qwen3-rerank":
            assert request.path == "/compatible-api/v1/reranks"
            return Reply({"object": "list", "results": ranks(body, body["instruct"])})
        parameters = body["parameters"]
        if request.path == "/api/v1/services/embeddings/text-embedding/text-embedding":
            texts = body["input"]["texts"]
            if len(texts) > 10:
                return Reply({"code": "InvalidParameter", "message": "batch size is invalid"}, status=400)
            if parameters["text_type"] == "query":
                texts = [f"Instruct: {parameters['instruct']}\nQuery:{text}" for text in texts]
            rows = compute(_encoded(tokenizer, texts))[:, : parameters["dimension"]].tolist()
            items = [{"text_index": i, "embedding": row} for i, row in enumerate(rows)]
            return Reply({"output": {"embeddings": items[::-1]}, "usage": {"total_tokens": 1}})
        if request.path == "/api/v1/services/rerank/text-rerank/text-rerank":
            return Reply({"output": {"results": ranks(body["input"], parameters["instruct"])}})
        return Reply({"code": "NotFound", "message": "no such path"}, status=404)

    return answer


def altered(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    """The same server, whose right answers are changed."""

    def changed(request: Request) -> Reply:
        reply = answer(request)
        return Reply(change(json.loads(reply.content)), reply.status)

    return changed


@cache
def tokenizer_of(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text).ids for text in texts]


def _pairs(tokenizer: Tokenizer, query: str, documents: Sequence[str]) -> list[list[int]]:
    """Query and document tokenised alone and joined, as servers without a template do."""
    return [tokenizer.encode(query).ids + tokenizer.encode(document).ids for document in documents]


def _rendered(tokenizer: Tokenizer, instruction: str, query: str, documents: Sequence[str]) -> list[list[int]]:
    bodies = [f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}" for document in documents]
    return _encoded(tokenizer, [RERANK_PREFIX + body + RERANK_SUFFIX for body in bodies])
