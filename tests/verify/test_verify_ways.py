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
        "instruction": None,
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
