"""The API key reaches the server's header and nothing else."""

from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest
from qwen3_rag import ConfigurationError, Embedder
from qwen3_rag.backends.remote import RemoteError
from qwen3_rag.backends.remote.keys import ApiKey, find_key
from qwen3_rag.backends.remote.options import parse_options
from qwen3_rag.settings import EngineSettings
from server import Answer, Reply, Request, Server, dead_url

Serve = Callable[[Answer], Server]
Make = Callable[..., Embedder]

KEY = "sk-0a1b2c3d4e5f-do-not-show"
RIGHT = models.vllm(models.digest())


class PydanticLike:
    """What pydantic's SecretStr offers: its pickle holds the value."""

    def __init__(self, value: str) -> None:
        self._secret_value = value

    def get_secret_value(self) -> str:
        return self._secret_value

    def __repr__(self) -> str:
        return "SecretStr('**********')"


class HaystackLike:
    """What Haystack's Secret.from_env_var offers: only the variable's name is in it."""

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def resolve_value(self) -> str | None:
        return os.environ.get(self.variable)

    def to_dict(self) -> dict[str, Any]:
        return {"type": "env_var", "env_vars": [self.variable], "strict": True}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that any logger says, at the lowest level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.NOTSET)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def guarded(request: Request) -> Reply:
    """A server that knows the key, and tells it to those who have another one."""
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        return Reply({"error": {"message": f"expected {KEY}"}}, 401)
    return RIGHT(request)


WAYS: dict[str, dict[str, Any]] = {
    "the variable's name": {"api_key_env": "SERVER_KEY"},
    "a SecretStr": {"api_key": PydanticLike(KEY)},
    "a SecretStr with a line break": {"api_key": PydanticLike(KEY + "\n")},
    "a Haystack secret": {"api_key": HaystackLike("SERVER_KEY")},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_the_key_reaches_the_server(way: str, serve: Serve, embedder: Make) -> None:
    assert embedder(serve(guarded).url, **WAYS[way]).embed_documents(["text"]).shape == (1, 64)


def test_without_a_key_none_is_sent(serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.setenv(name, KEY)
    server = serve(RIGHT)
    embedder(server.url).embed_documents(["text"])
    with pytest.raises(RemoteError):
        embedder(server.url, "dashscope").embed_documents(["text"])
    with pytest.raises(RemoteError):
        embedder(server.url, "openai").embed_documents(["text"])
    assert all("Authorization" not in request.headers for request in server.requests)
    assert len(server.requests) >= 3


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.openai.com/v1",
        "https://api.openai.com.example.org/v1",
        "https://notapi.openai.com.org",
        ["https://api.openai.com/v1", "https://example.org/v1"],
    ],
)
def test_a_vendors_variable_is_not_read_for_others(base_url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    urls = base_url if isinstance(base_url, list) else [base_url]
    assert find_key(parse_options({"server": "openai", "base_url": urls})) is None


@pytest.mark.parametrize("server", ["vllm", "tei", "cohere", "jina"])
def test_a_vendors_variable_is_read_whatever_its_server_is_said_to_speak(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    key = find_key(parse_options({"server": server, "base_url": "https://api.cohere.com/compatibility/v1"}))
    assert key is not None
    assert key.bearer == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("server", "base_url", "variable"),
    [
        ("dashscope", "https://dashscope-intl.aliyuncs.com", "DASHSCOPE_API_KEY"),
        ("openai", "https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
        ("dashscope", "https://workspace.eu-central-1.maas.aliyuncs.com", "DASHSCOPE_API_KEY"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    ],
)
def test_a_vendors_own_variable_is_needed_for_its_own_domain(
    server: str, base_url: str, variable: str, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=variable):
        embedder(base_url, server).load()
    monkeypatch.setenv(variable, KEY)
    embedder(base_url, server).load()


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": KEY},
        {"api_key": KEY.encode()},
        {"api_key_env": KEY},
        {"api_key_env": KEY.replace("-", "_")},  # a name by its characters, as Jina's keys are
        {"api_key_env": KEY + "\ud800"},  # which no variable's name can be encoded with
        {"api_key_env": "NOT_SET"},
        {"api_key": PydanticLike("")},
        {"api_key": PydanticLike(KEY + "\nX-Other: 1")},
        {"api_key": PydanticLike(KEY + "é")},
        {"api_key": HaystackLike("NOT_SET")},
        {"api_key_env": "SERVER_KEY", "base_url": f"http://user:{KEY}@localhost"},
        {"api_key_env": "SERVER_KEY", "base_url": f"http://user:{KEY}@[localhost"},
        {"api_key_env": "SERVER_KEY", "base_url": f"http://localhost?key={KEY}"},
        {"api_key_env": "SERVER_KEY", "base_url": f"http://localhost:{KEY}"},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_quoted(options: dict[str, Any], embedder: Make) -> None:
    options = {"base_url": "http://localhost", **options}
    with pytest.raises(ConfigurationError) as caught:
        embedder(options.pop("base_url"), **options).load()
    assert KEY not in _shown(caught.value).replace("_", "-")


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize(
    "fault",
    [
        "works",
        "401",
        "500",
        "echoes in text",
        "echoes in JSON",
        "echoes in 200",
        "reset",
        "slow",
        "dead",
        "NaN",
    ],
)
def test_the_key_shows_in_no_log_error_or_repr(
    way: str, fault: str, serve: Serve, embedder: Make, log: io.StringIO
) -> None:
    replies = {
        "401": Reply({"error": {"message": f"Incorrect API key provided: {KEY}."}}, 401),
        "500": Reply({"detail": f"Bearer {KEY}"}, 500),
        "echoes in text": Reply(f"bad key {KEY}".encode(), 403),
        "echoes in JSON": Reply({"code": 1, "error": {"data": [KEY]}}, 403),
        "echoes in 200": Reply(f"key {KEY}".encode()),
        "reset": Reply({"key": KEY * 9}, reset_after=60),
        "slow": Reply({}, delay=3),
        "NaN": Reply({"data": [{"index": 0, "embedding": [float("nan")] * 64}]}),
    }
    with dead_url() as dead:
        url = dead if fault == "dead" else serve(lambda r: replies[fault] if fault in replies else RIGHT(r)).url
        made = embedder(url, max_retries=1, timeout=0.4, **WAYS[way])
        if fault == "works":
            made.embed_documents(["text"])
        else:
            with pytest.raises(Exception, match=r"http://127") as caught:
                made.embed_documents(["text"])
            assert KEY not in _shown(caught.value, frames=True)
            assert _holds_no(KEY, caught.value)
    assert KEY not in repr(made)
    assert KEY not in repr(made.arguments)
    assert KEY not in repr(made.backend)
    assert KEY not in log.getvalue()
    assert "HTTP Request" in log.getvalue() or fault in ("dead", "slow", "reset"), "httpx logs were not seen"


LONG = "sk-" + "0123456789" * 6


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply((LONG * 4).encode()), "not JSON"),
        (Reply({"error": {"message": "x" * 255 + f" {LONG}"}}), "an error within: xxx"),
        (Reply({"error": {"message": "x" * 255 + f" {LONG}"}}, 400), "status 400: xxx"),
        (Reply({"data": [{"index": 0, "embedding": LONG}]}), "not valid base64"),
        (Reply({"data": [{"index": "x" * 60 + LONG, "embedding": ""}]}), "must number the 1 inputs"),
    ],
)
def test_a_key_that_a_quote_cuts_in_two_shows_no_half(
    reply: Reply, words: str, serve: Serve, embedder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is blotted out of the whole answer, and only then is that cut to what an error quotes."""
    monkeypatch.setenv("SERVER_KEY", LONG)
    made = embedder(serve(lambda _: reply).url, api_key_env="SERVER_KEY")
    with pytest.raises(RemoteError, match=words) as caught:
        made.embed_documents(["text"])
    assert "0123" not in str(caught.value)


@pytest.mark.parametrize(
    "quoted",
    [
        "abc/D+g&h/s==",
        r"abc\/D+g&h\/s==",
        "abc/D+g&amp;h/s==",
        "abc&#x2F;D+g&amp;h&#x2F;s==",
        "abc%2FD%2Bg%26h%2Fs%3D%3D",
    ],
)
def test_a_key_that_a_server_quotes_escaped_is_hidden_too(quoted: str) -> None:
    key = ApiKey("abc/D+g&h/s==", source="test")
    assert key.hide_in(f"got Bearer {quoted}, which is unknown") == "got Bearer [API key], which is unknown"


def test_a_key_that_its_own_escaped_form_begins_with_is_hidden_whole() -> None:
    assert ApiKey("abc&", source="test").hide_in("got abc&amp; or abc&.") == "got [API key] or [API key]."


def test_a_key_in_capitals_in_place_of_a_variables_name_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match="is it the key itself") as caught:
        find_key(parse_options({"server": "vllm", "base_url": "http://h", "api_key_env": KEY.upper()}))
    assert KEY.upper() not in _shown(caught.value)


def test_an_empty_key_is_said_to_be_empty() -> None:
    with pytest.raises(ConfigurationError, match="the API key in test is empty"):
        ApiKey(" \n", source="test")


def test_the_key_shows_in_no_settings_options_or_engine_key() -> None:
    kwargs = {"server": "vllm", "base_url": "http://localhost", "api_key": PydanticLike(KEY)}
    settings = EngineSettings("embedding", "m", "remote", model_kwargs=kwargs)
    assert KEY not in repr(settings)
    assert KEY not in settings.key
    assert KEY not in repr(parse_options(kwargs))
    assert KEY not in repr(ApiKey(KEY, source="test"))
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(ApiKey(KEY, source="test"))


def test_pickles_name_the_variable_and_work_elsewhere(serve: Serve, embedder: Make) -> None:
    made = embedder(serve(guarded).url, api_key_env="SERVER_KEY")
    made.embed_documents(["text"])
    pickled = pickle.dumps(made)
    assert KEY.encode() not in pickled
    with pickle.loads(pickled) as copied:
        assert copied.embed_documents(["text"]).shape == (1, 64)


def test_a_pickle_of_a_haystack_secret_holds_its_variable_only(serve: Serve, embedder: Make) -> None:
    made = embedder(serve(guarded).url, api_key=HaystackLike("SERVER_KEY"))
    assert KEY.encode() not in pickle.dumps(made)


def test_an_embedder_with_a_key_inside_refuses_to_be_pickled(embedder: Make) -> None:
    made = embedder("http://localhost", api_key=PydanticLike(KEY))
    with pytest.raises(TypeError, match="api_key_env") as caught:
        pickle.dumps(made)
    assert KEY not in _shown(caught.value)


def test_a_deep_copy_keeps_the_key(serve: Serve, embedder: Make) -> None:
    made = embedder(serve(guarded).url, api_key=PydanticLike(KEY))
    with copy.deepcopy(made) as copied:
        assert copied.embed_documents(["text"]).shape == (1, 64)


def test_a_plain_key_by_mistake_shows_in_no_repr(embedding_folder: Path) -> None:
    kwargs = {"server": "vllm", "base_url": "http://localhost", "api_key": KEY}
    assert KEY not in repr(EngineSettings("embedding", "m", "remote", model_kwargs=kwargs))
    assert KEY not in repr(Embedder(str(embedding_folder), backend="remote", model_kwargs=kwargs))


def _shown(error: BaseException, *, frames: bool = False) -> str:
    """An error as loggers write it; with `frames` as the most talkative do, local variables included.

    The test's own frames are left out: they hold the key, of course.
    """
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    stack = [str(frame.locals) for frame in told.stack if "/tests/" not in frame.filename and frames]
    written = "".join(traceback.format_exception(error))
    # Source lines of this file are shown too; the key is in none, only its name.
    return "\n".join([str(error), repr(error), repr(vars(error)), written, *stack])


def _holds_no(key: str, error: BaseException | None) -> bool:
    """Whether no exception of the chain has the key in an attribute, or is an HTTP client's."""
    while error is not None:
        assert not type(error).__module__.startswith(("httpx", "httpcore", "h11")), type(error)
        assert key not in repr(vars(error)) + repr(error.args)
        error = error.__cause__ or error.__context__
    return True
