"""Hybrid retrieval with LangChain: words (BM25) and meaning (vectors) find, the reranker decides.

pip install "qwen3-rag[langchain]" bm25s
python examples/hybrid_retrieval.py "error E-4711 when the pump starts"
"""

import argparse

import bm25s
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_rag import SCORE_KEY, Qwen3Embeddings, Qwen3Reranker

MANUAL = [
    "E-4711: the pump's inlet valve is closed. Open it and press reset.",
    "E-4712: the outlet filter is clogged. Clean it and press reset.",
    "If the motor does not run, check the fuse beside the power switch.",
    "The pump must be primed with water before it is switched on.",
    "Store the hose dry and away from sunlight.",
    "Spare parts can be ordered from your dealer.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query", nargs="?", default="error E-4711 when the pump starts")
    parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()

    # Two indexes of the same documents.
    documents = [Document(text, id=str(i)) for i, text in enumerate(MANUAL)]
    store = InMemoryVectorStore.from_documents(documents, Qwen3Embeddings(model=arguments.model))
    words = bm25s.BM25(corpus=documents)
    words.index(bm25s.tokenize(MANUAL, show_progress=False), show_progress=False)

    # Each brings its candidates; a document that both found counts once. Their scores need no
    # weighing against each other, since the reranker gives every candidate a score of its own.
    # BM25 fills up its list with documents that share no word with the query: their score is 0.
    tokens = bm25s.tokenize(arguments.query, show_progress=False)
    found, scores = words.retrieve(tokens, k=3, show_progress=False)
    by_words = [document for document, score in zip(found[0], scores[0], strict=True) if score > 0]
    by_meaning = store.similarity_search(arguments.query, k=3)
    candidates = {document.id: document for document in [*by_words, *by_meaning]}

    reranker = Qwen3Reranker(model=arguments.reranker, top_n=None)
    print(arguments.query)
    for document in reranker.compress_documents(list(candidates.values()), arguments.query):
        ways = {"words": by_words, "meaning": by_meaning}
        found_by = " and ".join(way for way, its in ways.items() if document.id in {one.id for one in its})
        print(f"{document.metadata[SCORE_KEY]:.3f}  {document.page_content}  (found by {found_by})")


if __name__ == "__main__":
    main()
