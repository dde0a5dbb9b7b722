"""What an embedder or ranker for Haystack owes its users.

Inherit a class, give its two properties and `hold`, and pytest checks the contract. Nothing here knows
Qwen3, so components of other vendors may be held to it as well::

    class TestMyRanker(RankerContract):
        @property
        def component_class(self):
            return MyRanker

        @property
        def component_params(self):
            return {"model": "my-model"}

        def hold(self, adapter):
            return my_gate_in_front_of(adapter.client)  # see EventLoopContract.hold

The class must be in `haystack_integrations`, or else be in the allow-list that Haystack loads files with.
"""

from qwen3_rag.testing.haystack.components import QUERY
from qwen3_rag.testing.haystack.documents import make_documents
from qwen3_rag.testing.haystack.embedders import DocumentEmbedderContract, TextEmbedderContract
from qwen3_rag.testing.haystack.ranker import RankerContract

__all__ = ["QUERY", "DocumentEmbedderContract", "RankerContract", "TextEmbedderContract", "make_documents"]
