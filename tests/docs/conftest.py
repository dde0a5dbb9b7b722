"""What the documents' snippets need: stand-ins for published models, servers, and a process that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from snippet_runner import Runner
from snippets import MODELS, ROOT, fill_hub_cache, hub_environment

sys.path.insert(0, str(Path(__file__).parents[1] / "remote"))
sys.path.append(str(ROOT))  # for `training`, which is no part of the package

LOCAL_FOLDERS = {
    "my-finetuned-embedder": "demo-embedding",
    "my-finetuned-reranker": "demo-reranker",
    "my-embedder": "demo-embedding",
    "my-reranker": "demo-reranker",
}


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_hub_cache(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def addresses() -> Iterator[dict[str, str]]:
    """Addresses in the documents -> loopback servers that compute with the demo pair."""
    import models
    import server
    from qwen3_rag import Embedder, Reranker

    with ExitStack() as stack:
        embedder, reranker = stack.enter_context(Embedder("demo")), stack.enter_context(Reranker("demo"))
        tokenizer = models.tokenizer_of(MODELS / "demo-embedding")
        embedding, reranking = models.checkpoint(embedder), models.checkpoint(reranker)
        vllm_embedding = models.vllm(embedding)
        vllm_reranking = models.vllm(reranking)

        vllm_text_reranking = models.relevance(reranking, tokenizer, path="/v2/rerank", field="instruction")

        def vllm(request: server.Request) -> server.Reply:
            if request.path == "/v2/rerank":
                return vllm_text_reranking(request)
            return (vllm_reranking if request.path == "/classify" else vllm_embedding)(request)

        one = stack.enter_context(server.serving(vllm)).url
        other = stack.enter_context(server.serving(vllm)).url
        llama_cpp = stack.enter_context(
            server.serving(models.relevance(reranking, tokenizer, path="/v1/rerank"))
        ).url
        sglang = stack.enter_context(server.serving(models.sglang(reranking, tokenizer))).url
        dashscope = stack.enter_context(server.serving(models.dashscope(embedding, tokenizer))).url
        yield {
            "http://localhost:8000": one,
            "http://127.0.0.1:8000": one,
            "http://127.0.0.1:8001": other,
            "http://localhost:8080": one,
            "http://localhost:8081": llama_cpp,
            "http://localhost:30000": sglang,
            "http://gpu-1:8000": one,
            "http://gpu-2:8000": other,
            "https://dashscope-intl.aliyuncs.com": dashscope,
        }


@pytest.fixture(scope="session")
def runner(
    hub_cache: Path, addresses: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("snippets")
    for name, model in LOCAL_FOLDERS.items():
        (folder / name).symlink_to(MODELS / model)
    environment = {**os.environ, **hub_environment(hub_cache), "VLLM_API_KEY": "unchecked"}
    script = [sys.executable, str(Path(__file__).with_name("snippet_script.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, env=environment, **pipes) as process:
        yield Runner(process, addresses, folder)
        assert process.stdin is not None
        process.stdin.close()
