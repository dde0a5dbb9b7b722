"""LangChain, LlamaIndex and Haystack in one process, on one set of weights per model.

LangChain indexes, the queries of the other two search the same index, and all three rerank what was found.

pip install "qwen3-rag[all]"
python examples/three_frameworks.py "What holds planets in their orbits?"
"""

import argparse

from haystack import Document as HaystackDocument
from haystack_integrations.components.embedders.qwen3_rag import Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Embedder, Reranker

PAGES = [
    "Gravity attracts bodies to each other and keeps planets on their orbits.",
    "A sourdough loaf needs flour, water, salt and a lively starter.",
    "The moon circles the earth once in about 27 days.",
    "Tides follow the moon.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query", nargs="?", default="What holds planets in their orbits?")
    parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()
    query = arguments.query

    # Ready components for all. Naming the same models in each framework would share weights just as well.
    with Embedder(arguments.model) as embedder, Reranker(arguments.reranker) as reranker:
        embeddings = Qwen3Embeddings(embedder=embedder)
        store = InMemoryVectorStore.from_texts(PAGES, embeddings)
        vectors = {
            "LangChain": embeddings.embed_query(query),
            "LlamaIndex": Qwen3Embedding(embedder=embedder).get_query_embedding(query),
            "Haystack": Qwen3TextEmbedder(embedder=embedder).run(text=query)["embedding"],
        }
        found = {
            framework: [page.page_content for page in store.similarity_search_by_vector(vector, k=3)]
            for framework, vector in vectors.items()
        }

        langchain = Qwen3Reranker(reranker=reranker, top_n=3).compress_documents(
            [Document(page) for page in found["LangChain"]], query
        )
        llama_index = Qwen3Rerank(reranker=reranker, top_n=3).postprocess_nodes(
            [NodeWithScore(node=TextNode(text=page)) for page in found["LlamaIndex"]], query_str=query
        )
        haystack = Qwen3Ranker(reranker=reranker, top_k=3).run(
            query=query, documents=[HaystackDocument(content=page) for page in found["Haystack"]]
        )["documents"]

    print(query)
    for first, second, third in zip(langchain, llama_index, haystack, strict=True):
        print(f"LangChain   {first.metadata[SCORE_KEY]:.4f}  {first.page_content}")
        print(f"LlamaIndex  {second.score:.4f}  {second.text}")
        print(f"Haystack    {third.score:.4f}  {third.content}")


if __name__ == "__main__":
    main()
