"""Runs documents' Python blocks on request, each document in a process of its own.

Reads one JSON object a line: {"document": name, "blocks": [[line, code], ...], "folder": where to run}. Answers
with one: {"error": traceback or null}. What takes long to import is imported once; then each request is a fork.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from types import ModuleType
from typing import Any

HEAVY = (
    "qwen3_rag.backends.transformers.loading",
    "transformers.models.qwen3.modeling_qwen3",
    "sentence_transformers",
    "httpx",
    "langchain_classic.retrievers",
    "langchain_qwen3_rag",
    "llama_index.embeddings.qwen3_rag",
    "llama_index.postprocessor.qwen3_rag",
    "haystack_integrations.components.embedders.qwen3_rag",
)


def main() -> None:
    """Serve until standard input ends."""
    # Snippets print; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in HEAVY:
        __import__(name)
    for line in sys.stdin:
        print(json.dumps({"error": _in_child(json.loads(line))}), file=answers, flush=True)
    os._exit(0)  # taking down so many modules takes seconds


def _in_child(request: dict[str, Any]) -> str | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            error = _error_of(request)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                json.dump(error, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(told) if told else f"the process ended with status {status}"


def _error_of(request: dict[str, Any]) -> str | None:
    from qwen3_rag.component import Component

    made: list[Component] = []
    create = Component.__init__

    def recorded(self: Component, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        made.append(self)

    Component.__init__ = recorded  # type: ignore[method-assign]
    os.chdir(request["folder"])
    warnings.simplefilter("ignore")
    # Some classes look their module up by name.
    module = sys.modules["__main__"] = ModuleType("__main__")
    try:
        for line, code in request["blocks"]:
            # Blank lines in front: tracebacks then name the line of the document.
            exec(compile("\n" * (line - 1) + code, request["document"], "exec"), module.__dict__)
        for component in made:
            _use(component)
    except BaseException:
        return traceback.format_exc()
    return None


def _use(component: Any) -> None:
    """Run what a document only made: options, names and addresses are then known to be right."""
    from qwen3_rag import Embedder
    from qwen3_rag.errors import EngineClosedError

    try:
        if isinstance(component, Embedder):
            assert component.embed_queries(["What is shown?"]).shape == (1, component.dimensions)
        else:
            assert component.score("What is shown?", ["A snippet."]).shape == (1,)
    except EngineClosedError:
        pass  # by the document itself


if __name__ == "__main__":
    main()
