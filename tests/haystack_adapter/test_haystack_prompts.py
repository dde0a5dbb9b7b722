"""What reaches the model, by token ids: queries with their instruction, documents without, texts unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from checkpoints import genuine_tokenizer
from haystack import Document, Pipeline
from haystack_integrations.components.embedders.qwen3_rag import Qwen3DocumentEmbedder, Qwen3TextEmbedder
from haystack_integrations.components.rankers.qwen3_rag import Qwen3Ranker
from qwen3_rag import DEFAULT_INSTRUCTION, Embedder, Reranker
from qwen3_rag.testing.recording import recording

TEXT = "  two leading spaces,\nthen a line\r\n\tand a tab "
END_OF_TEXT = 151643

Run = Callable[[Any, dict[str, Any]], Any]


def run(component: Any, inputs: dict[str, Any]) -> Any:
    return component.run(**inputs)


def run_async(component: Any, inputs: dict[str, Any]) -> Any:
    return asyncio.run(component.run_async(**inputs))


def in_pipeline(component: Any, inputs: dict[str, Any]) -> Any:
    pipeline = Pipeline()
    pipeline.add_component("it", component)
    return pipeline.run({"it": inputs})


def in_async_pipeline(component: Any, inputs: dict[str, Any]) -> Any:
    pipeline = Pipeline()
    pipeline.add_component("it", component)
    return asyncio.run(pipeline.run_async({"it": inputs}))


every_way = pytest.mark.parametrize("way", [run, run_async, in_pipeline, in_async_pipeline])


def ids(text: str) -> list[int]:
    token_ids: list[int] = genuine_tokenizer(appends_end_of_text=False).encode(text).ids
    return token_ids


@every_way
def test_query_carries_its_instruction(way: Run, embedder: Embedder) -> None:
    with recording(embedder) as record:
        way(Qwen3TextEmbedder(**embedder.arguments), {"text": TEXT})
    expected = ids(f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:{TEXT}")
    assert record.prompts == [[*expected, END_OF_TEXT]]


@every_way
def test_query_carries_an_instruction_of_ones_own(way: Run, embedder: Embedder) -> None:
    with recording(embedder) as record:
        way(Qwen3TextEmbedder(**{**embedder.arguments, "instruction": "Find poems"}), {"text": TEXT})
    assert record.prompts == [[*ids(f"Instruct: Find poems\nQuery:{TEXT}"), END_OF_TEXT]]


@every_way
def test_documents_carry_no_instruction(way: Run, embedder: Embedder) -> None:
    component = Qwen3DocumentEmbedder(
        **{**embedder.arguments, "instruction": "Find poems"},
        progress_bar=False,
        meta_fields_to_embed=["title"],
        embedding_separator=" | ",
    )
    documents = [Document(content=TEXT), Document(content=TEXT, meta={"title": "\nT "}), Document(content=None)]
    with recording(embedder) as record:
        way(component, {"documents": documents})
    expected = [[*ids(text), END_OF_TEXT] for text in (TEXT, f"\nT  | {TEXT}", "")]
    assert sorted(record.prompts) == sorted(expected)


@every_way
@pytest.mark.parametrize("instruction", [None, "Find poems"])
def test_pair_carries_template_and_instruction(way: Run, instruction: str | None, reranker: Reranker) -> None:
    component = Qwen3Ranker(**{**reranker.arguments, "instruction": instruction})
    with recording(reranker) as record:
        way(component, {"query": TEXT, "documents": [Document(content=TEXT[::-1])]})
    task = DEFAULT_INSTRUCTION if instruction is None else instruction
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    body = f"<Instruct>: {task}\n<Query>: {TEXT}\n<Document>: {TEXT[::-1]}"
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert record.prompts == [[*ids(prefix), *ids(body), *ids(suffix)]]


@pytest.mark.parametrize("kind", ["text", "documents", "ranker"])
def test_fifty_concurrent_runs_share_batches(kind: str, embedder: Embedder, reranker: Reranker) -> None:
    documents = [[Document(content=f"Passage {i}."), Document(content=f"Other {i}.")] for i in range(50)]
    component: Any = {
        "text": Qwen3TextEmbedder(embedder=embedder),
        "documents": Qwen3DocumentEmbedder(embedder=embedder, progress_bar=False),
        "ranker": Qwen3Ranker(reranker=reranker),
    }[kind]

    async def fifty() -> Any:
        if kind == "text":
            return await asyncio.gather(*(component.run_async(text=f"Query {i}") for i in range(50)))
        if kind == "documents":
            return await asyncio.gather(*(component.run_async(documents=pair) for pair in documents))
        return await asyncio.gather(
            *(component.run_async(f"Query {i}", pair) for i, pair in enumerate(documents))
        )

    with recording(embedder if kind != "ranker" else reranker, calls=50) as record:
        outputs = asyncio.run(fifty())
    assert len(outputs) == 50
    assert len(record.prompts) == (50 if kind == "text" else 100)
    assert len(record.rounds) < 10
