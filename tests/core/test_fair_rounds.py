"""Who gets how much of a round: nobody waits for another's bulk, and nobody is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from qwen3_rag import Embedder
from qwen3_rag.calls import Call, Flow, Portion, pick_portions
from qwen3_rag.engine import Engine
from qwen3_rag.plan import MAX_OVERFILL
from qwen3_rag.testing.recording import recording
from sum_backend import SumBackend, ids, submit

BUDGET = 100


def call(lengths: list[int], flow: Flow | None = None) -> Call:
    """A call of prompts of these lengths, no two of which have a beginning in common."""
    return Call([ids(*[1_000 * place + length] * length) for place, length in enumerate(lengths)], flow=flow)


def rounds(calls: list[Call]) -> list[list[Portion]]:
    """Pick until nothing waits."""
    picked = []
    while waiting := [one for one in calls if one.waiting_prompts]:
        picked.append(pick_portions(waiting, BUDGET))
        assert picked[-1], "a round must take something"
    return picked


@given(st.lists(st.lists(st.integers(1, 300), max_size=8), min_size=1, max_size=8))
def test_every_prompt_is_taken_once_and_rounds_keep_to_the_budget(jobs: list[list[int]]) -> None:
    calls = [call(lengths) for lengths in jobs]
    picked = rounds(calls)
    for one, lengths in zip(calls, jobs, strict=True):
        taken = [int(i) for portions in picked for p in portions if p.call is one for i in p.indices]
        assert sorted(taken) == list(range(len(lengths)))
    for portions in picked:
        costs = [portion.tokens for portion in portions]
        longest = max((length for lengths in jobs for length in lengths), default=0)
        assert sum(costs) <= BUDGET + max(longest, BUDGET / 8)


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=30), min_size=1, max_size=6), st.integers(0, 9)
)
@example(
    [[84], [84, *[1] * 10, 7], [94, 7], [166], [17, 99]], 6
)  # the fourth saves up and is not served before
def test_who_asks_for_its_share_or_less_is_in_the_next_round(jobs: list[list[int]], before: int) -> None:
    bulk = [call(lengths) for lengths in jobs]
    for _ in range(before):
        if waiting := [one for one in bulk if one.waiting_prompts]:
            pick_portions(waiting, BUDGET)
    waiting = [one for one in bulk if one.waiting_prompts]
    query = call([BUDGET // (len(waiting) + 1)])
    portions = pick_portions([*waiting, query], BUDGET)
    assert any(portion.call is query for portion in portions)


@given(
    st.integers(1, 300),
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=10), max_size=4),
    st.lists(st.integers(0, 3), min_size=40, max_size=40),
)
def test_nobody_is_forgotten_whatever_comes(tokens: int, jobs: list[list[int]], arrivals: list[int]) -> None:
    """A prompt waits about as many rounds as it needs shares, while bulk jobs run and queries keep coming."""
    bulk, long = [call(lengths * 30) for lengths in jobs], call([tokens])
    most = len(bulk) + 1 + max(arrivals)
    for passed, arriving in enumerate(arrivals, start=1):
        queries = [call([BUDGET // most]) for _ in range(arriving)]
        pick_portions([one for one in (*bulk, long, *queries) if one.waiting_prompts], BUDGET)
        assert not any(query.waiting_prompts for query in queries)
        if not long.waiting_prompts:
            return
        assert passed <= tokens * most / BUDGET + most


def test_a_bulk_job_in_many_pieces_has_one_share() -> None:
    bulk = Flow()
    pieces = [call([40] * 20, bulk) for _ in range(4)]
    query = call([45])
    pick_portions(pieces, BUDGET)
    assert query in [portion.call for portion in pick_portions([*pieces, query], BUDGET)]


def test_a_new_flow_comes_before_those_that_have_saved_up() -> None:
    bulk = [call([60] * 5, Flow(credit=60.0)) for _ in range(5)]
    query = call([16])
    portions = pick_portions([*bulk, query], BUDGET)
    assert query in [portion.call for portion in portions]
    assert sum(portion.tokens for portion in portions) == 16 + 2 * 60, "nor all that they saved up"


def test_what_room_is_left_goes_to_who_got_least_and_is_not_exceeded() -> None:
    owing, other = call([40] * 9, Flow(credit=-20.0)), call([40] * 9)
    portions = pick_portions([owing, other], BUDGET)
    assert {portion.call: portion.tokens for portion in portions} == {owing: 40, other: 40}
    assert [portion.tokens for portion in pick_portions([call([60] * 2), call([60] * 2)], BUDGET)] == [60]


def test_who_asks_for_little_saves_nothing_up_and_who_overdrew_still_owes_it() -> None:
    little, much = Flow(), Flow()
    pick_portions([call([10], little), call([80], much)], BUDGET)
    assert (little.credit, much.credit) == (0.0, -30.0)


def test_a_flow_that_overdrew_pays_it_back() -> None:
    long, short = call([300] * 3), call([10] * 100)
    served = {long: 0, short: 0}
    for portions in rounds([long, short])[:6]:
        for portion in portions:
            served[portion.call] += portion.tokens
    # Of 6 rounds of 100 tokens, each has had about half, give or take one of the long prompts.
    assert abs(served[long] - served[short]) <= 300


def test_a_query_among_bulk_jobs_of_long_texts_is_in_the_next_round() -> None:
    backend = SumBackend()
    engine = Engine(lambda: backend)
    engine.load()
    backend.gate.clear()
    for _ in range(5):
        flow = Flow()
        for _ in range(4):
            submit(engine, [ids(*[n] * 90) for n in range(1, 60)], flow)
    assert backend.running.wait(30)
    query = submit(engine, [ids(5000)])
    backend.gate.set()
    assert query.result(30).values.tolist() == [5000]
    assert [5000 in first for first in backend.rounds].index(True) == 1
    engine.close()


@pytest.mark.parametrize(("last", "taken"), [(12, 62), (13, 50)])
def test_what_is_too_little_for_a_round_goes_along_with_the_one_before(last: int, taken: int) -> None:
    one, other = call([50, last]), call([50])
    portions = pick_portions([one, other], BUDGET)
    assert [sum(p.tokens for p in portions if p.call is each) for each in (one, other)] == [taken, 50]
    assert (one.waiting_prompts > 0) == (last == 13)
    assert sum(portion.tokens for portion in pick_portions([call([40, 10]), call([40])], 80)) == 90


def test_a_rest_that_shares_its_beginning_goes_along_whole() -> None:
    """Its first prompt is no longer computed in full: the round has that beginning already."""
    beginning = list(range(1, 61))
    one = Call([ids(*beginning, *[1_000 + number] * 20) for number in range(3)])
    assert one.waiting_tokens == 120
    portions = pick_portions([one], 110)
    assert sum(len(portion.indices) for portion in portions) == 3


def test_prompts_cost_all_their_tokens_where_prefixes_are_not_shared() -> None:
    prompts = [ids(*range(1, 61), *[1_000 + number] * 20) for number in range(3)]
    assert Call(prompts, share_prefixes=False).waiting_tokens == 240


def test_rounds_without_shared_prefixes_keep_to_the_budget(embedding_checkpoint: Path) -> None:
    texts = [f"{'the same beginning ' * 20}{number}" for number in range(30)]
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "token_budget": 256}
    with Embedder(str(embedding_checkpoint), share_prefixes=False, **options) as embedder:
        with recording(embedder) as seen:
            embedder.embed_documents(texts)
        assert max(sum(map(len, prompts)) for prompts in seen.rounds) <= 256 * MAX_OVERFILL


@pytest.mark.parametrize("tokens", [-5.0, 0.0, 9.0])
def test_less_than_a_prompt_costs_takes_none_unless_one_must_be(tokens: float) -> None:
    one = call([10])
    assert one.take(tokens) is None
    portion = one.take(tokens, at_least=1)
    assert portion is not None
    assert portion.tokens == 10
