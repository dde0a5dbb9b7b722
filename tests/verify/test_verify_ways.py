"""Which ways of asking a server are chosen, and with which names and instruction."""

from __future__ import annotations

from typing import Any

import pytest
from oracle import TASK
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.verification.subject import Input
from qwen3_rag.verification.verify_endpoint import Ways, find_ways

PAIR = Input(("q", "a"), [1])


class Fake:
    """A vLLM server with one model; it notes what it is asked."""

    url = "http://h"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def check_reachable(self) -> None:
        self.asked.append("reachable")

    def detect(self, kind: str) -> str:
        self.asked.append(f"speaks of {kind}")
        return "vllm"

    def model_name(self, model: str) -> str:
        self.asked.append(f"name of {model}")
        return "theirs"


def ways_of(fake: Fake, kind: Any = "reranking", **changes: Any) -> Ways:
    options: dict[str, Any] = {
        "server": None,
        "served_model": None,
        "send": "auto",
        "template": "server",
        "path": None,
        "instruction": None,
        "instruction_field": None,
        "dimensions": None,
        **changes,
    }
    endpoint: Any = fake
    return find_ways(endpoint, kind, model="ours", **options)


def test_what_is_not_given_is_asked_for_once_the_server_is_there() -> None:
    fake = Fake()
    ways = ways_of(fake)
    assert fake.asked == ["reachable", "speaks of reranking", "name of ours"]
    assert (ways.server, ways.served_model) == ("vllm", "theirs")
    assert [way.body([PAIR])["model"] for way in ways.routes] == ["theirs", "theirs"]


def test_what_is_given_is_not_asked_for() -> None:
    fake = Fake()
    ways = ways_of(fake, server="cohere", served_model="given")
    assert fake.asked == ["reachable"]
    assert (ways.server, ways.served_model) == ("cohere", "given")
    assert [way.body([PAIR])["model"] for way in ways.routes] == ["given"]


@pytest.mark.parametrize(("instruction", "sent"), [("Find it.", "Find it."), (None, TASK)])
def test_requests_hold_the_asked_instruction_or_the_default_one(instruction: str | None, sent: str) -> None:
    (way,) = ways_of(Fake(), server="dashscope", instruction=instruction).routes
    assert way.body([PAIR])["parameters"]["instruct"] == sent
    (rendered,) = ways_of(Fake(), server="cohere", template="client", instruction=instruction).routes
    assert sent in rendered.body([PAIR])["query"]
    (told,) = ways_of(Fake(), server="cohere", instruction_field="task", instruction=instruction).routes
    assert told.body([PAIR])["task"] == sent


def test_a_way_that_does_not_tell_an_instruction_is_refused_or_not_noted() -> None:
    """It could only be wrong, and would be named a missing instruction."""
    both = ways_of(Fake(), instruction=TASK).routes
    assert [way.takes_ids for way in both] == [True, False], "the default one need not be told"
    ids = ways_of(Fake(), instruction="Find it.")
    assert [way.takes_ids for way in ids.routes] == [True]
    told = ways_of(Fake(), instruction="Find it.", instruction_field="task")
    assert [way.takes_ids for way in told.routes] == [True, False]
    for options in ({"send": "both"}, {"send": "text"}, {"server": "tei"}, {"server": "jina"}):
        with pytest.raises(
            ConfigurationError, match="renders the template of POST /rerank, text, and is not told"
        ):
            ways_of(Fake(), instruction="Find it.", **options)


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        ("reranking", {"server": "jina"}, ["POST /api/v3/rank, text"]),
        ("reranking", {"send": "ids"}, ["POST /api/v3/rank, token ids"]),
        ("embedding", {}, ["POST /api/v3/rank, token ids", "POST /api/v3/rank, text"]),
    ],
)
def test_a_given_path_is_asked_and_reported(kind: str, options: dict[str, Any], names: list[str]) -> None:
    ways = ways_of(Fake(), kind, path="/api/v3/rank", **options).routes
    assert {way.url for way in ways} == {"http://h/api/v3/rank"}
    assert [way.name for way in ways] == names


def test_a_path_that_is_none_or_would_be_of_two_ways_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='--path must be a string that starts with "/"'):
        ways_of(Fake(), path="rank")
    with pytest.raises(ConfigurationError, match="different paths; add --send ids or --send text"):
        ways_of(Fake(), path="/rank")


@pytest.mark.parametrize(
    ("server", "send", "take_ids", "text_is_note"),
    [
        ("vllm", "auto", [True, False], True),
        ("vllm", "both", [True, False], False),
        ("vllm", "ids", [True], False),
        ("vllm", "text", [False], False),
        ("tei", "auto", [False], False),
        ("tei", "both", [False], False),
        ("tei", "text", [False], False),
    ],
)
@pytest.mark.parametrize("kind", ["embedding", "reranking"])
def test_text_is_noted_only_where_ids_are_sent_too_and_nothing_else_is_asked_for(
    server: str, send: str, take_ids: list[bool], text_is_note: bool, kind: str
) -> None:
    ways = ways_of(Fake(), kind, server=server, send=send)
    assert [way.takes_ids for way in ways.routes] == take_ids
    assert ways.text_is_note == text_is_note


def test_a_server_that_takes_no_ids_is_not_asked_for_ids() -> None:
    with pytest.raises(ConfigurationError, match="--send ids: a server of kind tei takes no ids"):
        ways_of(Fake(), server="tei", send="ids")


def test_vectors_of_the_asked_length_are_asked_for_and_no_scores() -> None:
    ways = ways_of(Fake(), "embedding", dimensions=64).routes
    assert [way.body([])["dimensions"] for way in ways] == [64, 64]
    with pytest.raises(ConfigurationError, match="--dimensions is for embedding models only"):
        ways_of(Fake(), dimensions=64)
