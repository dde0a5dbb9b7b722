"""A loopback server of every dialect over a model that may be faulty. It shares nothing with the package."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from faulty_model import Served


class _Handler(BaseHTTPRequestHandler):
    served: Served
    speaks: str
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: the second of two waits 40 ms for the first to be acknowledged.
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path in self.served.broken:
            if status := self.served.broken[self.path]:
                self._reply(status, {}, headers={"Retry-After": "0.01"})
            else:
                self.close_connection = True
            return
        owner = "llamacpp" if self.speaks == "llama.cpp" else "somebody"
        listed = [{"id": name, "owned_by": owner} for name in self.served.listed]
        known: dict[str, Any] = {"/v1/models": {"data": listed}}
        if self.speaks == "vllm":
            known["/version"] = {"version": "0.32.0"}
        if self.speaks == "tei":
            known["/info"] = {"model_type": {"embedding": {}}, "model_id": "the-model"}
        self._reply(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.served.key is not None and self.headers["Authorization"] != f"Bearer {self.served.key}":
            self._reply(401, {"error": {"message": "bad key"}})
            return
        if self.served.failures:
            status, later = self.served.failures.pop(0), self.served.retry_after
            headers = {} if later is None else {"Retry-After": later}
            self._reply(status, {"error": {"message": "not now"}}, headers=headers)
            return
        if self.served.fault == "redirect":
            self._reply(308, {}, headers={"Location": "https://example.com/v1/embeddings?token=secret"})
            return
        if self.served.fault == "never ends":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(b" ")
                self.wfile.flush()  # which fails when the client has gone
                time.sleep(0.05)
        if self.served.fault == "no JSON":
            self._reply(200, None, f"<html>{self.headers['Authorization']}".encode())
            return
        if self.served.fault in ("refused", "error within"):  # and, as bad servers do, repeats what it was sent
            # so that a cut to 300 characters goes through the key
            said = f"not supported{'.' * 240} {self.headers['Authorization']}"
            self._reply(400 if self.served.fault == "refused" else 200, {"error": {"message": said}})
            return
        try:
            self._reply(200, self._formed(self._answer(body)))
        except KeyError as error:
            self._reply(404, {"error": f"unknown {error}"})
        except Exception as error:
            self._reply(500, {"error": repr(error)})
            raise

    def _formed(self, answer: Any) -> Any:
        rows = answer.get("data", answer.get("results", [])) if isinstance(answer, dict) else []
        for row in rows:
            name = "embedding" if "embedding" in row else "relevance_score"
            row[name] = self.served.form(row.get(name), len(rows))
        return answer

    def _answer(self, body: dict[str, Any]) -> Any:
        served = self.served
        if self.path == "/embed":
            return served.embed(body["inputs"], body.get("dimensions"))
        if self.path == "/v1/embeddings":
            assert body["model"] == "the-model"
            vectors = served.embed(body["input"], body.get("dimensions"))
            return {"data": [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]}
        if self.path == "/classify":
            scores = served.classify(body["input"])
            return {"data": [{"index": i, "probs": [score]} for i, score in enumerate(scores)]}
        if self.path == "/api/v1/services/rerank/text-rerank/text-rerank" and body["model"] != "qwen3-rerank":
            scores = served.rerank(body["input"]["query"], body["input"]["documents"])
            return {"output": {"results": _sorted(scores, "relevance_score")}}
        if self.path == "/api/v1/services/embeddings/text-embedding/text-embedding":
            parameters = body["parameters"]
            prompt = f"Instruct: {parameters['instruct']}\nQuery:" if parameters["text_type"] == "query" else ""
            texts = [prompt + text for text in body["input"]["texts"]]
            assert len(texts) <= 10
            vectors = served.embed(texts, parameters.get("dimension"))
            rows = [{"text_index": i, "embedding": vector} for i, vector in enumerate(vectors)]
            return {"output": {"embeddings": rows}}
        if self.path == "/rerank" and self.speaks == "tei":
            return _sorted(served.rerank(body["query"], body["texts"]), "score")
        versions = {"cohere": "/v2", "jina": "/v1", "llama.cpp": "/v1"}
        own = versions.get(self.speaks, "") + "/rerank"
        if self.path in (own, "/compatible-api/v1/reranks"):
            return {"results": _sorted(served.rerank(body["query"], body["documents"]), "relevance_score")}
        raise KeyError(self.path)

    def _reply(
        self, status: int, content: Any, raw: bytes | None = None, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(content).encode() if raw is None else raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _sorted(scores: list[float], name: str) -> list[dict[str, Any]]:
    """Best first, as rerank endpoints answer."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [{"index": i, name: scores[i]} for i in order]


@contextmanager
def running(served: Served, speaks: str) -> Iterator[str]:
    """Serve on loopback and give the base URL."""
    handler = type("Handler", (_Handler,), {"served": served, "speaks": speaks})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.block_on_close = False  # clients keep connections open, and their threads wait for a next request
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
