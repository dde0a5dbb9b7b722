"""Keys for LlamaIndex's `embeddings_cache` that tell queries from documents and models from models.

The framework looks a text up by the text alone, so that a query would be answered with the vector
of a document of the same words, and one model's store with another model's vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

from qwen3_rag.roles import Role

_role: ContextVar[Role] = ContextVar("qwen3_rag_role", default="document")

_IDENTITY: Final = ("model", "revision", "hub", "dimensions", "max_tokens", "parse_special_tokens")
"""Options that decide a document's vector, up to rounding. `model_kwargs` may hold what has no
stable text; whoever loads variants of a model by them gives each its own store."""


@contextmanager
def looking_up_a_query() -> Iterator[None]:
    """Within, texts looked up in a `KeyedCache` are queries."""
    token = _role.set("query")
    try:
        yield
    finally:
        _role.reset(token)


class KeyedCache(BaseKVStore):
    """A view of a store whose keys are a digest of role, model and text.

    Args:
        store: where the vectors are kept, under this view's keys.
        options: the core's options by name.

    Attributes:
        store: as given.
    """

    def __init__(self, store: BaseKVStore, options: Mapping[str, Any]) -> None:
        self.store = store
        document = {name: options[name] for name in _IDENTITY}
        self._identities: dict[Role, Any] = {
            "document": document,
            "query": {**document, "instruction": options["instruction"]},
        }

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Store the vector of the text `key`."""
        self.store.put(self._digest(key), val, collection=collection)

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """`put` for event loops."""
        await self.store.aput(self._digest(key), val, collection=collection)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """Return what is stored for the text `key`, or None."""
        return self.store.get(self._digest(key), collection=collection)

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """`get` for event loops."""
        return await self.store.aget(self._digest(key), collection=collection)

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Return everything in the store's collection, under the store's own keys."""
        return self.store.get_all(collection=collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """`get_all` for event loops."""
        return await self.store.aget_all(collection=collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Forget the text `key` and say whether it was there."""
        return self.store.delete(self._digest(key), collection=collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """`delete` for event loops."""
        return await self.store.adelete(self._digest(key), collection=collection)

    def _digest(self, text: str) -> str:
        role = _role.get()
        named = json.dumps([self._identities[role], text], sort_keys=True)
        return f"qwen3-rag {role} {hashlib.sha256(named.encode()).hexdigest()}"
