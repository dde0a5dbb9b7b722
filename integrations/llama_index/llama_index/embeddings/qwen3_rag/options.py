"""The core's constructor options as fields of LlamaIndex's components, and what the framework saves of them.

`Qwen3Embedding` and `Qwen3Rerank` both inherit this; it is no part of the public interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.core.schema import BaseComponent

from qwen3_rag.pydantic_adapter import PydanticAdapter
from qwen3_rag.secret import without_secrets


class CoreOptions(PydanticAdapter, BaseComponent):
    """Fields that `Embedder` and `Reranker` have in common.

    A field that is excluded from saved forms holds an object that copies share, such as a cache.
    """

    model_config = ConfigDict(validate_assignment=True)

    if not TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            fields.pop("class_name", None)  # in serialised forms only
            super().__init__(**fields)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the configuration as a dict that `from_dict` takes, without secrets.

        Args:
            **kwargs: as pydantic's `model_dump`.
        """
        data = super().to_dict(**kwargs)
        if data.get("model_kwargs") is not None:
            # As they are: pydantic would write a quantisation config as a dict of some of its fields.
            data["model_kwargs"] = without_secrets(self.model_kwargs)
        return data

    @property
    def _left_behind(self) -> set[str]:
        excluded = {name for name, field in type(self).model_fields.items() if field.exclude}
        needed = {name for name in excluded if type(self).model_fields[name].is_required()}
        return {self.ready, *(excluded - needed - self._component.arguments.keys())}
