"""What embedders owe their users."""

from __future__ import annotations

from typing import Any

import pytest
from haystack import Document

from qwen3_rag.testing.haystack.components import QUERY, ComponentContract
from qwen3_rag.testing.haystack.documents import DocumentsContract, make_documents


class TextEmbedderContract(ComponentContract):
    """For a component that embeds one string: `component_class` and `component_params`."""

    def inputs(self) -> dict[str, Any]:
        return {"text": QUERY}

    def numbers(self, output: dict[str, Any]) -> list[float]:
        embedding: list[float] = output["embedding"]
        return embedding

    def test_embedding_is_a_list_of_floats(self, component: Any) -> None:
        embedding = component.run(text=QUERY)["embedding"]
        assert type(embedding) is list
        assert embedding
        assert {type(value) for value in embedding} == {float}

    def test_empty_text_has_an_embedding_as_long_as_others(self, component: Any) -> None:
        assert len(component.run(text="")["embedding"]) == len(component.run(text=QUERY)["embedding"])

    def test_texts_differ_by_line_breaks(self, component: Any) -> None:
        outputs = [component.run(text=text) for text in ("a\nb", "a b")]
        assert not self.agree(*outputs)

    @pytest.mark.parametrize("wrong", [[QUERY], None, 3, [Document(content=QUERY)]])
    def test_anything_but_a_string_is_a_type_error(self, component: Any, wrong: Any) -> None:
        with pytest.raises(TypeError):
            component.run(text=wrong)


class DocumentEmbedderContract(DocumentsContract):
    """For a component that embeds documents: `component_class` and `component_params`.

    The class has `meta_fields_to_embed`, and "\\n" as its separator.
    """

    def inputs(self) -> dict[str, Any]:
        return {"documents": make_documents()}

    def numbers(self, output: dict[str, Any]) -> list[float]:
        return [value for document in output["documents"] for value in document.embedding]

    def run(self, component: Any, documents: list[Document]) -> list[Document]:
        outputs: list[Document] = component.run(documents=documents)["documents"]
        return outputs

    def test_order_is_kept(self, component: Any) -> None:
        documents = make_documents()
        assert [d.id for d in self.run(component, documents)] == [d.id for d in documents]

    def test_each_document_gets_its_own_embedding(self, component: Any) -> None:
        documents = make_documents()
        together = component.run(documents=documents)
        alone = [self.run(component, [document])[0] for document in documents]
        assert self.agree(together, {"documents": alone})

    def test_embeddings_are_lists_of_floats_of_one_length(self, component: Any) -> None:
        embeddings: list[Any] = [document.embedding for document in self.run(component, make_documents())]
        assert {type(embedding) for embedding in embeddings} == {list}
        assert {type(value) for embedding in embeddings for value in embedding} == {float}
        assert len({len(embedding) for embedding in embeddings}) == 1
