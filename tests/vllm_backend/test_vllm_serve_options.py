"""vLLM's own parser reads in a printed command what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from qwen3_rag.serving import ServedModel, serve_command
from qwen3_rag.vllm_facts import CPU_BLOCK_SIZE
from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser

EMBEDDER, RERANKER = "Qwen/Qwen3-Embedding-8B", "Qwen/Qwen3-Reranker-0.6B"


def read(served: ServedModel) -> Any:
    """What `vllm serve` would start with."""
    parser = FlexibleArgumentParser()
    (serve,) = cmd_init()
    serve.subparser_init(parser.add_subparsers())
    program, *arguments = serve_command("vllm", served).argv
    assert program == "vllm"
    return parser.parse_args(arguments)


def test_all_that_can_be_asked_for_arrives() -> None:
    asked = ServedModel(
        EMBEDDER,
        "embedding",
        max_tokens=4096,
        port=8123,
        host="::1",
        revision="abc",
        gpu_share=0.4,
        tensor_parallel=2,
        data_parallel=3,
    )
    found = read(asked)
    assert (found.model_tag, found.runner, found.convert) == (EMBEDDER, "pooling", "embed")
    assert (found.dtype, found.max_model_len, found.enable_prefix_caching) == ("bfloat16", 4096, True)
    assert (found.host, found.port, found.revision) == ("::1", 8123, "abc")
    assert (found.gpu_memory_utilization, found.tensor_parallel_size, found.data_parallel_size) == (0.4, 2, 3)
    assert found.hf_overrides == {"is_matryoshka": True}


@pytest.mark.parametrize("converted", [False, True])
def test_only_an_original_reranker_is_made_a_classifier(converted: bool) -> None:
    overrides = read(ServedModel(RERANKER, "reranking", converted=converted)).hf_overrides
    assert overrides.get("classifier_from_token") == (None if converted else ["no", "yes"])


def test_a_cpu_compiles_nothing_and_its_cache_has_a_size() -> None:
    found = read(ServedModel(RERANKER, "reranking", dtype="float32", cpu=True))
    assert (found.dtype, found.block_size, found.enforce_eager) == ("float32", CPU_BLOCK_SIZE, True)
    assert found.kv_cache_memory_bytes > found.max_model_len * 28 * 2 * 8 * 128 * 4
