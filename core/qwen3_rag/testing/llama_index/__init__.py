"""What a LlamaIndex adapter owes its users.

Inherit a class, give its two properties and `hold`, and pytest checks the contract. Nothing here knows
Qwen3, so embedding models and rerankers of other vendors may be held to it as well::

    class TestMyRerank(RerankContract):
        @property
        def rerank_class(self):
            return MyRerank

        @property
        def rerank_params(self):
            return {"model": "..."}

        def hold(self, adapter):
            return my_gate_in_front_of(adapter.client)  # see EventLoopContract.hold

Not every model that works in LlamaIndex passes: `EmbeddingContract` says what it asks beyond the base class.

Needs pytest and llama-index-core.
"""

from qwen3_rag.testing.llama_index.embedding import EmbeddingContract
from qwen3_rag.testing.llama_index.event_log import CallbackLog, events
from qwen3_rag.testing.llama_index.rerank import RerankContract
from qwen3_rag.testing.llama_index.samples import QUERY, TEXTS, nodes, scores_by_id

__all__ = [
    "QUERY",
    "TEXTS",
    "CallbackLog",
    "EmbeddingContract",
    "RerankContract",
    "events",
    "nodes",
    "scores_by_id",
]
