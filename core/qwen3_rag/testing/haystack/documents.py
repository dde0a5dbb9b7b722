"""What components owe their users that take documents and return copies of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import pytest
from haystack import Document

from qwen3_rag.testing.haystack.components import ComponentContract


def make_documents() -> list[Document]:
    """Return new documents: with and without content, with line breaks and leading spaces, with meta values."""
    return [
        Document(content="Light from the sun takes about eight minutes to reach the earth.", meta={"page": 0}),
        Document(content="The sun is a star.", meta={"title": "Stars", "tags": ["sun"]}, score=0.25),
        Document(content="Bread is baked from flour,\nwater and salt.", meta={"title": None}),
        Document(content="   The distance from the sun to the earth is one astronomical unit."),
        Document(content=None, meta={"title": "Empty"}),
        Document(content=""),
    ]


class DocumentsContract(ComponentContract):
    """What components have in common that take documents and return copies of them."""

    @abstractmethod
    def run(self, component: Any, documents: list[Document]) -> list[Document]:
        """Run with documents and return the documents that come out."""

    def test_no_documents_give_no_documents(self, component: Any) -> None:
        assert self.run(component, []) == []

    def test_documents_that_come_out_are_copies(self, component: Any) -> None:
        documents = make_documents()
        outputs = self.run(component, documents)
        assert not {id(document) for document in outputs} & {id(document) for document in documents}
        assert documents == make_documents()

    def test_ids_contents_and_meta_are_kept(self, component: Any) -> None:
        documents = make_documents()
        by_id = {document.id: document for document in self.run(component, documents)}
        assert len(by_id) == len(documents)
        for document in documents:
            assert by_id[document.id].content == document.content
            assert by_id[document.id].meta == document.meta

    @pytest.mark.parametrize("wrong", ["text", ["text"], [Document(content="a"), None], Document(content="a")])
    def test_anything_but_a_list_of_documents_is_a_type_error(self, component: Any, wrong: Any) -> None:
        with pytest.raises(TypeError):
            self.run(component, wrong)

    def computed_alike(self, first: Document, second: Document) -> bool:
        """Whether a component that embeds the meta values `title` and `page` gives both the same numbers."""
        component = self.make(meta_fields_to_embed=["title", "page"])
        values = [self.numbers({"documents": self.run(component, [document])}) for document in (first, second)]
        pairs = zip(*values, strict=True)
        return all(math.isclose(a, b, rel_tol=0, abs_tol=self.tolerance) for a, b in pairs)

    def test_meta_fields_come_before_the_content(self) -> None:
        document = Document(content="text", meta={"title": "T", "page": 7})
        assert self.computed_alike(document, Document(content="T\n7\ntext"))

    @pytest.mark.parametrize("value", [0, False, 0.0])
    def test_false_meta_values_are_kept(self, value: Any) -> None:
        document = Document(content="text", meta={"page": value})
        assert self.computed_alike(document, Document(content=f"{value}\ntext"))

    def test_missing_meta_fields_and_none_are_left_out(self) -> None:
        assert self.computed_alike(Document(content="text", meta={"title": None}), Document(content="text"))
