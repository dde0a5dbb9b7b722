"""`qwen3-rag verify`: exit codes, words and JSON."""

from __future__ import annotations

import json
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_server import Served, running
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.cli import app
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.plugins import load_backend
from qwen3_rag.verification import verify_backend
from qwen3_rag.verification.connection import AnswerError, Connection
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.endpoint import Endpoint
from qwen3_rag.verification.reference import Reference
from qwen3_rag.verification.routes import routes
from qwen3_rag.verification.subject import Input
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def served(embedding_checkpoint: Path) -> Served:
    return Served(embedding_checkpoint)


@pytest.fixture
def url(served: Served) -> Iterator[str]:
    with running(served, "vllm") as url:
        yield url
    served.fault = ""
    served.failures = []
    served.broken = {}


LIVE = "the running server's"
DEAD = "http://127.0.0.1:9"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["verify", "--device", "cpu", *map(str, arguments)])


def test_a_right_server_exits_with_0(url: str, embedding_checkpoint: Path) -> None:
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 0, result.output
    assert "POST /v1/embeddings, token ids: right" in result.stdout
    assert "all agree" in result.stdout
    assert "(vllm) asked for 'the-model', compared with" in result.stdout
    assert re.search(r"checked up to 1,[34]\d\d tokens; longer texts were not sent", result.stdout)


def test_a_faulty_server_exits_with_1_and_says_what_to_do(
    url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.fault = "missing-final-token"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 1, result.output
    assert "the final token <|endoftext|> is missing: their largest difference from the local" in result.stdout
    assert "fix: Serve the checkpoint's own tokenizer files" in result.stdout


def test_json_holds_all_of_it(url: str, served: Served, embedding_checkpoint: Path) -> None:
    served.fault = "not-normalised"
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids", "--json")
    report = json.loads(result.stdout)
    assert (report["passed"], report["kind"]) == (False, "embedding")
    assert report["served_model"] == "the-model"
    assert report["longest"] == report["checks"][0]["longest"] > 1300
    assert [check["path"] for check in report["checks"]] == ["POST /v1/embeddings, token ids"]
    assert report["checks"][0]["difference"] < 1e-5
    assert report["checks"][0]["findings"][0]["fault"] == "not-normalised"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --url"),
        (["--url", DEAD, "--backend", "transformers"], "give either --url"),
        (["--url", DEAD, "--server", "openai"], "cannot be reached"),
        (["--url", "user:secret@host"], "url must look like"),
        (["--url", "http://user:secret@127.0.0.1:9"], "holds a user name, a password or a query"),
        (["--url", "http://127.0.0.1:9?key=secret"], "holds a user name, a password or a query"),
        (["--url", "http://user:secret@[127"], "url must look like"),
        (["--url", "http://é_é.example"], "url must look like"),
        (["--url", DEAD, "--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--url", DEAD, "--api-key-env", "sk-secret-5f1d"], "is it the key itself?"),
        (["--url", DEAD, "--api-key-env", "jina_secret5f1d"], "is it the key itself?"),
        (["--backend", "transformers", "--max-tokens", "40000"], "must be 256 to 32768"),
        (["--backend", "transformers", "--max-tokens", "100"], "must be 256 to 32768"),
        (["--backend", "nothing"], "unknown backend 'nothing'"),
        (["--backend", "transformers", "--model-kwargs", "["], "must be a JSON object"),
        (["--backend", "transformers", "--dimensions", "32"], "--dimensions goes with --url"),
        (["--backend", "transformers", "--send", "ids"], "--send goes with --url"),
        (["--backend", "transformers", "--timeout", "120"], "--timeout goes with --url"),
        (
            ["--backend", "transformers", "--served-model", "m", "--template", "server", "--server", "tei"],
            "--server, --template, --served-model goes with --url; leave it out with --backend",
        ),
        (["--backend", "transformers", "--api-key-env", "HOME"], "--api-key-env goes with --url"),
        (["--url", DEAD, "--model-kwargs", "{}"], "--model-kwargs goes with --backend"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(arguments: list[str], said: str, embedding_checkpoint: Path) -> None:
    result = run(*arguments, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", DEAD], "9) (ConnectError)"),
        (["--url", DEAD, "--server", "openai", "--served-model", "m"], f"{DEAD} cannot be reached: "),
        (["--url", LIVE, "--server", "cohere"], "not for embedding"),
        (["--url", LIVE, "--server", "tei", "--send", "ids"], "takes no ids"),
        (["--url", LIVE, "--kind", "reranking", "--dimensions", "32"], "for embedding models only"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_reference_is_loaded(
    arguments: list[str], said: str, url: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(
        embedding_checkpoint, tmp_path / "no weights", ignore=lambda *_: ["model.safetensors"]
    )
    result = run(*(url if one == LIVE else one for one in arguments), "--model", folder)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


@pytest.mark.parametrize(
    ("path", "spared"), [("/version", ["--server", "vllm"]), ("/v1/models", ["--served-model", "the-model"])]
)
@pytest.mark.parametrize(
    ("status", "said"), [(0, "does not answer: Server disconnected"), (503, "could not be asked: HTTP 503")]
)
def test_that_a_question_got_no_answer_is_not_taken_for_one(
    status: int, said: str, path: str, spared: list[str], url: str, served: Served, embedding_checkpoint: Path
) -> None:
    """The server would be another kind of server, and its token ids never checked."""
    served.broken = {path: status}
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert f"{url}{path} {said}" in result.stderr
    assert f"{spared[0]} " in result.stderr
    told = run("--url", url, "--model", embedding_checkpoint, *spared)
    assert told.exit_code == 0, told.output


def test_the_timeout_is_that_of_a_whole_answer(url: str, served: Served) -> None:
    """Every byte of this one comes in time, and the last one never."""
    served.fault = "never ends"
    connection = Connection(None, timeout=0.3)
    with pytest.raises(OSError, match=r"/v1/embeddings does not answer: no whole answer within 0\.3 s"):
        connection.post(url + "/v1/embeddings", {})
    connection.close()


def test_a_host_that_swallows_connections_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def swallowed(client: httpx.AsyncClient, *_: object, **__: object) -> None:
        assert client.timeout.connect == 10
        raise httpx.ConnectTimeout("")

    monkeypatch.setattr(httpx.AsyncClient, "request", swallowed)
    with (
        Endpoint(DEAD, key=None, timeout=120) as endpoint,
        pytest.raises(OSError, match="cannot be reached: no connection within 10 s"),
    ):
        endpoint.check_reachable()


def test_that_it_went_by_a_proxy_is_told(embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    result = run("--url", "http://gpu.example:8000", "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert "http://gpu.example:8000 cannot be reached: " in result.stderr
    assert "(ConnectError) through the proxy set in HTTP_PROXY" in result.stderr


def test_model_and_connections_are_closed_also_when_it_ends_early(
    url: str, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    for one in (Endpoint, Reference):

        def close(self: Any, close: Any = one.close) -> None:
            closed.append(type(self).__name__)
            close(self)

        monkeypatch.setattr(one, "close", close)
    result = run("--url", url, "--model", embedding_checkpoint, "--max-tokens", "100")
    assert "must be 256 to 32768" in result.stderr
    assert closed == ["Reference", "Endpoint"]


def test_the_api_key_is_sent_and_shown_nowhere(
    url: str, served: Served, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = served.key = "k-5f1d-not-a-real-one"
    monkeypatch.setenv("SOME_KEY", key)
    try:
        asked = ("--url", url, "--model", embedding_checkpoint, "--send", "ids")
        assert run(*asked, "--api-key-env", "SOME_KEY").exit_code == 0
        refused = run(*asked)
        assert refused.exit_code == 2
        assert "--api-key-env" in refused.stderr
        for fault, status in (("refused", 400), ("error within", 200)):
            served.fault = fault
            told = run(*asked, "--api-key-env", "SOME_KEY")
            assert told.exit_code == 1
            assert f"refused: it refuses the request: HTTP {status} from {url}/v1/embeddings" in told.stdout
            assert "not supported..." in told.stdout
            assert "[API key]" in told.stdout
            assert key[:4] not in told.output
    finally:
        served.key = None


@pytest.mark.parametrize("fault", ["nobody", "unreachable", "no JSON", "refused", "error within"])
def test_no_exception_holds_the_api_key(fault: str, url: str, served: Served) -> None:
    """Not in its chain either: an HTTP client's exception holds the request, and that its headers."""
    served.fault = fault
    key = "k-5f1d-not-a-real-one"
    endpoint = Endpoint(
        DEAD if fault in ("nobody", "unreachable") else url,
        key=ApiKey(key, source="test"),
        timeout=5,
    )
    (way,) = routes(
        endpoint.url, "openai", "embedding", model="m", template="server", instruction="", dimensions=None
    )
    ask = partial(endpoint.ask, way, [Input(Text("a", "", is_query=False), [])])
    with endpoint, pytest.raises((OSError, AnswerError)) as caught:
        endpoint.check_reachable() if fault == "nobody" else ask()
    error: BaseException | None = caught.value
    while error is not None:
        assert not type(error).__module__.startswith(("httpx", "json")), type(error)
        assert key not in repr(vars(error)) + repr(error.args)
        error = error.__cause__ or error.__context__


def test_no_local_variable_holds_the_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    key = ApiKey("k-5f1d-" + "not-a-real-one", source="test")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE") as caught:
        Endpoint("https://127.0.0.1:9", key=key, timeout=5)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "k-5f1d-not-a-real-one" not in str([frame.locals for frame in told.stack])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NO_PROXY", "localhost,::1,fd00::/8"),
        ("ALL_PROXY", "socks://user:hunter2@host:1"),
        ("https_proxy", "host:notaport"),
        ("SSL_CERT_FILE", "/nowhere/hunter2"),
        ("ALL_PROXY", "socks5://user:hunter2@host:1"),
    ],
)
def test_an_environment_that_no_client_can_be_made_with_is_named_without_its_values(
    name: str, value: str, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)  # what SOCKS needs is not installed
    result = run("--url", DEAD, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert name in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_for_a_while_is_asked_again(
    status: int, url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.failures = [status] * 3
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_could_not_be_asked(
    status: int, url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.failures = [status] * 100
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids")
    assert result.exit_code == 2, result.output
    assert f"could not be asked: HTTP {status}" in result.stderr
    assert "not now" in result.stderr
    assert len(served.failures) == 95


def test_no_pause_is_longer_than_the_timeout(url: str, served: Served) -> None:
    pauses: list[float] = []
    served.failures = [503] * 100
    connection = Connection(None, timeout=0.025, sleep=pauses.append)
    with pytest.raises(OSError, match="could not be asked"):
        connection.post(url + "/v1/embeddings", {})
    connection.close()
    assert pauses == [0.01, 0.01]


def test_a_redirect_is_told_with_where_it_leads_and_no_query(
    url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.fault = "redirect"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert "redirects (HTTP 308) to https://example.com/v1/embeddings;" in result.stderr
    assert "secret" not in result.output


def test_a_text_path_that_is_wrong_is_told_and_does_not_fail_the_server(
    url: str, served: Served, embedding_checkpoint: Path
) -> None:
    served.fault = "chat-template"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 0, result.output
    assert "for other clients, POST /v1/embeddings, text: WRONG" in result.stdout
    assert "clients that send text get other numbers" in result.stdout
    assert run("--url", url, "--model", embedding_checkpoint, "--send", "both").exit_code == 1


@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_a_right_backend_passes(kind: str, embedding_checkpoint: Path, reranking_checkpoint: Path) -> None:
    model = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    result = run("--backend", "transformers", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["kind"] == kind
    assert report["target"] == 'backend "transformers"'


def test_a_backend_that_finds_nan_is_named(url: str, served: Served, embedding_checkpoint: Path) -> None:
    served.fault = "not-finite"
    kwargs = json.dumps({"server": "openai", "base_url": url, "served_model": "the-model"})
    result = run("--backend", "remote", "--model", embedding_checkpoint, "--model-kwargs", kwargs, "--json")
    assert result.exit_code == 1, result.output
    (check,) = json.loads(result.stdout)["checks"]
    assert [finding["fault"] for finding in check["findings"]] == ["not-finite"]
    assert check["difference"] is None


def third_partys(change: Callable[[Any], Any]) -> Any:
    """A class of backends whose values are changed ones of ours."""

    class Changed:
        def __init__(self, settings: Any) -> None:
            self.right = load_backend(settings)

        def run(self, prompts: Any) -> Any:
            output = self.right.run(prompts)
            return replace(output, values=change(output.values))

        def close(self) -> None:
            self.right.close()

    return Changed


def test_a_wrong_backend_is_named(reranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's numbers, not ours: `verify` is how a third party's backend is checked."""
    monkeypatch.setattr(verify_backend, "load_backend", third_partys(lambda values: -values))
    result = run("--backend", "transformers", "--model", reranking_checkpoint)
    assert result.exit_code == 1
    assert "answers-swapped" in result.stdout


@pytest.mark.parametrize(
    ("change", "kind", "shapes"),
    [
        (lambda values: values[:, None], "reranking", "(14, 1) and (1, 1)"),
        (lambda values: values[:1], "reranking", "(1,)"),
        (lambda values: values[:, 0], "embedding", "(13,)"),
        (lambda values: values[:, : 32 if len(values) == 1 else None], "embedding", "(13, 64) and (1, 32)"),
    ],
    ids=["a list of each score", "a score too few", "no vectors", "two lengths"],
)
def test_a_backend_whose_values_have_another_form_is_told_so(
    change: Any,
    kind: str,
    shapes: str,
    embedding_checkpoint: Path,
    reranking_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """numpy would compare some of them with all that is right."""
    monkeypatch.setattr(verify_backend, "load_backend", third_partys(change))
    model = embedding_checkpoint if kind == "embedding" else reranking_checkpoint
    result = run("--backend", "transformers", "--model", model)
    assert result.exit_code == 2, result.output
    assert f"it gave {shapes}" in result.stderr
