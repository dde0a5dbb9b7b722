"""LangChain, LlamaIndex and Haystack in one process, on one set of weights.

pip install "qwen3-rag[all]"
python examples/three_frameworks.py "What holds planets in their orbits?"
"""

import argparse

from haystack import Document as HaystackDocument
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from langchain_core.documents import Document
from langchain_qwen3_rag import SCORE_KEY, Qwen3Reranker
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank
from qwen3_rag import Reranker

PAGES = [
    "Gravity attracts bodies to each other and keeps planets on their orbits.",
    "A sourdough loaf needs flour, water, salt and a lively starter.",
    "The moon circles the earth once in about 27 days.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query", nargs="?", default="What holds planets in their orbits?")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()

    # One ready Reranker for all. Naming the same model three times would share its weights just as well.
    with Reranker(arguments.reranker) as reranker:
        langchain = Qwen3Reranker(reranker=reranker, top_n=3).compress_documents(
            [Document(page) for page in PAGES], arguments.query
        )
        llama_index = Qwen3Rerank(reranker=reranker, top_n=3).postprocess_nodes(
            [NodeWithScore(node=TextNode(text=page)) for page in PAGES], query_str=arguments.query
        )
        haystack = Qwen3Ranker(reranker=reranker, top_k=3).run(
            query=arguments.query, documents=[HaystackDocument(content=page) for page in PAGES]
        )["documents"]

    print(arguments.query)
    for first, second, third in zip(langchain, llama_index, haystack, strict=True):
        print(f"LangChain   {first.metadata[SCORE_KEY]:.4f}  {first.page_content}")
        print(f"LlamaIndex  {second.score:.4f}  {second.text}")
        print(f"Haystack    {third.score:.4f}  {third.content}")


if __name__ == "__main__":
    main()
