"""What adapters cost over the core, and the core over its backend.

    python -m benchmarks.overhead [--layers 1] [--rounds 9] [--json FILE]

From the root of the repository, with "qwen3-rag[all]" and the dependency group `test`. Checkpoints
have the 0.6B widths, few layers and random weights. A model's own time varies by more than an adapter
takes, so each way is timed with the model's first answer standing in for its runs, and the whole with the
model only through the core. The ways alternate within each round, so that a machine's slow moments
hit all of them; given are medians. Vectors and scores are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker
from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.component import Component
from qwen3_rag.tokenization import Prompt

from benchmarks.machine import describe
from benchmarks.texts import QUERY
from benchmarks.timing import Ways, medians
from tests.checkpoints import Qwen3Model, Shape, genuine_tokenizer, make_checkpoint

FRAMEWORKS = ("langchain-core", "llama-index-core", "haystack-ai")


def passages(count: int) -> list[str]:
    """Texts of 20 to 120 words drawn from a small vocabulary, the same at every run."""
    chance = random.Random(0)
    words = ["the", "sun", "light", "takes", "eight", "minutes", "to", "reach", "earth", "while", "orbits"]
    return [" ".join(chance.choices(words, k=chance.randint(20, 120))) for _ in range(count)]


def embedding_ways(embedder: Embedder, texts: list[str]) -> Ways:
    """The same 100 passages through the core and each framework, on one set of weights."""
    langchain = Qwen3Embeddings(embedder=embedder)
    llama_index = Qwen3Embedding(embedder=embedder)
    haystack = Qwen3DocumentEmbedder(embedder=embedder, progress_bar=False)

    def by_haystack() -> Any:
        found = haystack.run(documents=[HaystackDocument(content=text) for text in texts])["documents"]
        return [document.embedding for document in found]

    return {
        "core": lambda: embedder.embed_documents(texts),
        "LangChain": lambda: langchain.embed_documents(texts),
        "LlamaIndex": lambda: llama_index.get_text_embedding_batch(texts),
        "Haystack": by_haystack,
    }


def reranking_ways(reranker: Reranker, texts: list[str]) -> Ways:
    """Likewise one query and 100 passages."""
    langchain = Qwen3Reranker(reranker=reranker, top_n=None)
    llama_index = Qwen3Rerank(reranker=reranker, top_n=len(texts))
    haystack = Qwen3Ranker(reranker=reranker, top_k=len(texts))

    def by_llama_index() -> Any:
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
        return [node.score for node in llama_index.postprocess_nodes(nodes, query_str=QUERY)]

    def by_haystack() -> Any:
        documents = [HaystackDocument(content=text) for text in texts]
        return [document.score for document in haystack.run(query=QUERY, documents=documents)["documents"]]

    def by_langchain() -> Any:
        found = langchain.compress_documents([Document(text) for text in texts], QUERY)
        return [document.metadata[SCORE_KEY] for document in found]

    return {
        "core": lambda: [ranked.score for ranked in reranker.rerank(QUERY, texts)],
        "LangChain": by_langchain,
        "LlamaIndex": by_llama_index,
        "Haystack": by_haystack,
    }


def lone_call_ways(embedder: Embedder) -> Ways:
    """One query by itself."""
    return {"core": lambda: embedder.embed_queries([QUERY])}


def measure(component: Component, ways: Ways, rounds: int) -> dict[str, Any]:
    """Time the ways of one job, the first of which is the core.

    Returns:
        Median seconds of the core with the model, of each way without, and what each of the others
        adds to the core as a share of the former.
    """
    core = next(iter(ways))
    whole = medians({core: ways[core]}, rounds)[core]
    with model_left_out(component):
        rest = medians(ways, rounds)
    return {
        "seconds": whole,
        "seconds_without_the_model": rest,
        "added_to_the_core": {name: (rest[name] - rest[core]) / whole for name in ways if name != core},
    }


@contextmanager
def model_left_out(component: Component) -> Iterator[None]:
    """Answer every run with the first run's values, which must be for as many prompts."""
    backend = component.load().backend
    assert backend is not None
    run, answers = backend.run, dict[int, BackendOutput]()

    def remembered(prompts: Sequence[Prompt]) -> BackendOutput:
        if len(prompts) not in answers:
            answers[len(prompts)] = run(prompts)
        return answers[len(prompts)]

    with patch.object(backend, "run", remembered):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    shape = Shape(1024, arguments.layers, 16, 8, 128, 3072)
    texts = passages(100)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"shape": shape, "dtype": torch.bfloat16}
        embedding = make_checkpoint(
            Path(folder, "embedding"),
            genuine_tokenizer(appends_end_of_text=True),
            architecture=Qwen3Model,
            **options,
        )
        reranking = make_checkpoint(
            Path(folder, "reranking"), genuine_tokenizer(appends_end_of_text=False), **options
        )
        with Embedder(str(embedding)) as embedder, Reranker(str(reranking)) as reranker:
            jobs: dict[str, tuple[Component, Ways, int]] = {
                "embed 100 passages": (embedder, embedding_ways(embedder, texts), arguments.rounds),
                "rerank 100 passages": (reranker, reranking_ways(reranker, texts), arguments.rounds),
                "embed one query": (embedder, lone_call_ways(embedder), 20 * arguments.rounds),
            }
            for _, ways, _ in jobs.values():
                results = [np.asarray(way(), np.float32) for way in ways.values()]
                for result in results[1:]:
                    np.testing.assert_array_equal(result, results[0])
            measured = {name: measure(*job) for name, job in jobs.items()}
    report = {
        "what": f"0.6B widths, {arguments.layers} layers, {arguments.rounds} rounds",
        "machine": describe("torch", "transformers", *FRAMEWORKS),
        "results": measured,
    }
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
