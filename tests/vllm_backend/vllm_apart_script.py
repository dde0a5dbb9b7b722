"""Run by test_vllm_processes.py: engines with processes of their own, one of which dies.

Usage: python vllm_apart_script.py EMBEDDING_FOLDER RERANKING_FOLDER RESULTS. Writes results as it goes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from vllm_processes import descendants
from vllm_texts import generated_pairs, generated_texts

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "backend": "vllm"}


def main(embedding: str, reranking: str, results: Path) -> None:
    from qwen3_rag import Embedder, Reranker, WorkerDiedError

    found: dict[str, Any] = {"before": engine_processes()}
    texts = generated_texts()
    embedder = Embedder(embedding, **OPTIONS)
    found["vectors"] = embedder.embed_documents(texts).tolist()
    found["engine"] = engine_processes()
    # Imported by vLLM, as in a script that does not know of it: at the end it waits for the engines' processes.
    import multiprocessing

    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    try:
        embedder.embed_documents(texts)
    except WorkerDiedError as error:
        found["died"] = str(error)
        found["died_for_all"] = error.concerns_every_prompt
    found["vectors_again"] = embedder.embed_documents(texts).tolist()
    embedder.close()
    found["after_close"] = engine_processes()
    # Shares of a model and copies are apart whatever this says; it spares each of them one process more.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with Reranker(reranking, **OPTIONS, model_kwargs={"tensor_parallel_size": 2}) as shared:
        found["scores_of_shares"] = shared.score_pairs(generated_pairs()).tolist()
        found["shares"] = len(multiprocessing.active_children())
    found["after_closing_shares"] = engine_processes()
    reranker = Reranker(reranking, **OPTIONS, model_kwargs={"data_parallel_size": 2})
    found["scores"] = reranker.score_pairs(generated_pairs()).tolist()
    found["copies"] = len(multiprocessing.active_children())
    found["left_open"] = engine_processes()
    results.write_text(json.dumps(found))
    # The reranker is not closed: the interpreter's end has to do that.


def engine_processes() -> list[int]:
    """All processes below this one, but for Python's own that watches shared resources until it ends."""
    command = "/proc/{}/cmdline"
    return [
        pid
        for pid in sorted(descendants(os.getpid()))
        if b"resource_tracker" not in Path(command.format(pid)).read_bytes()
    ]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
