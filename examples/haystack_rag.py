"""Haystack: index documents, retrieve by vectors, rerank, print.

pip install "qwen3-rag[haystack]"
python examples/haystack_rag.py "How long does light from the sun take to reach us?"
"""

import argparse

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker

DOCUMENTS = [
    Document(content="Sunlight needs about eight minutes to reach the earth.", meta={"title": "Light"}),
    Document(content="The sun is a star, made of hydrogen and helium.", meta={"title": "The sun"}),
    Document(content="The moon circles the earth once in about twenty-seven days.", meta={"title": "The moon"}),
    Document(content="Solar panels turn light into electric current.", meta={"title": "Energy"}),
    Document(content="Sourdough rises without added yeast.", meta={"title": "Baking"}),
]

parser = argparse.ArgumentParser()
parser.add_argument("query", nargs="?", default="How long does light from the sun take to reach us?")
parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
args = parser.parse_args()

store = InMemoryDocumentStore()

indexing = Pipeline()
indexing.add_component("embedder", Qwen3DocumentEmbedder(model=args.model, meta_fields_to_embed=["title"]))
indexing.add_component("writer", DocumentWriter(store))
indexing.connect("embedder.documents", "writer.documents")
indexing.run({"embedder": {"documents": DOCUMENTS}})

# The query's embedder names the same model, so it uses the weights that are loaded already.
search = Pipeline()
search.add_component("embedder", Qwen3TextEmbedder(model=args.model))
search.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=4))
search.add_component("ranker", Qwen3Ranker(model=args.reranker, top_k=3, meta_fields_to_embed=["title"]))
search.connect("embedder.embedding", "retriever.query_embedding")
search.connect("retriever.documents", "ranker.documents")

result = search.run({"embedder": {"text": args.query}, "ranker": {"query": args.query}})["ranker"]
print(args.query)
for place, document in enumerate(result["documents"], start=1):
    print(f"{place}. {document.score:.3f}  {document.content}")
print(f"{result['meta']['usage']['prompt_tokens']} tokens were reranked")
