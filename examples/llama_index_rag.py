"""LlamaIndex: index, retrieve, rerank, print.

pip install "qwen3-rag[llama-index]"
python examples/llama_index_rag.py "Who pulls on the sea?"
"""

import argparse

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_rag import Qwen3Embedding
from llama_index.postprocessor.qwen3_rag import Qwen3Rerank

PAGES = {
    "tides": "Tides rise and fall because the moon pulls on the sea.",
    "glass": "Glass is made of sand, soda and lime, melted together.",
    "waves": "Most waves on the ocean are raised by the wind.",
    "moon": "The moon moves 3.8 centimetres further away each year.",
    "chess": "In chess a pawn that reaches the last row becomes another piece.",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("query", nargs="?", default="Who pulls on the sea?")
    parser.add_argument("--model", default="Qwen/Qwen3-Embedding-0.6B")
    parser.add_argument("--reranker", default="Qwen/Qwen3-Reranker-0.6B")
    arguments = parser.parse_args()

    # Index: documents are embedded as they are.
    nodes = [TextNode(id_=page, text=text) for page, text in PAGES.items()]
    index = VectorStoreIndex(nodes, embed_model=Qwen3Embedding(model=arguments.model))

    # Retrieve: the query is embedded with its instruction.
    found = index.as_retriever(similarity_top_k=4).retrieve(arguments.query)

    # Rerank: each node is read together with the query. In a query engine:
    # index.as_query_engine(node_postprocessors=[rerank], similarity_top_k=4)
    rerank = Qwen3Rerank(model=arguments.reranker, top_n=3)
    best = rerank.postprocess_nodes(found, query_str=arguments.query)

    print(arguments.query)
    for node in best:
        print(f"{node.score:.3f}  {node.node_id}: {node.text}")


if __name__ == "__main__":
    main()
