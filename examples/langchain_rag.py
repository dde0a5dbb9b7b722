"""LangChain: index, retrieve, rerank, print.

pip install "qwen3-rag[langchain]"
python examples/langchain_rag.py "What holds planets in their orbits?"
"""

import argparse

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker

PAGES = {
    "physics": "Gravity attracts bodies to each other and keeps planets on their orbits.",
    "baking": "A sourdough loaf needs flour, water, salt and a lively starter.",
    "space": "The moon circles the earth once in about 27 days.",
    "tides": "Tides rise and fall because the moon pulls on the sea.",
    "music": "A violin has four strings tuned in fifths.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query", nargs="?", default="What holds planets in their orbits?")
    parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()

    # Index: documents are embedded as they are.
    documents = [Document(text, metadata={"page": page}) for page, text in PAGES.items()]
    store = InMemoryVectorStore.from_documents(documents, Qwen3Embeddings(model=arguments.model))

    # Retrieve: the query is embedded with its instruction.
    found = store.as_retriever(search_kwargs={"k": 4}).invoke(arguments.query)

    # Rerank: each document is read together with the query.
    best = Qwen3Reranker(model=arguments.reranker, top_n=3).compress_documents(found, arguments.query)

    print(arguments.query)
    for document in best:
        print(f"{document.metadata[SCORE_KEY]:.3f}  {document.metadata['page']}: {document.page_content}")


if __name__ == "__main__":
    main()
