"""Parsing servers' answers. Counts, order, lengths and numbers are all checked.

Errors never quote part of a string: part of a key would not be recognised as one, and so not be hidden.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qwen3_rag.ranking import yes_probability

LARGEST_LOG_ODDS: Final = 26 * float(np.log(2))
"""18.0, the log-odds of 1 - 2**-26. A P(yes) that rounds to 1 in float32 exceeds 1 - 2**-25, and the sigmoid of
this value rounds to 1 again."""

SMALLEST_LOG_ODDS: Final = -151 * float(np.log(2))
"""-104.7, the log-odds of 2**-151: less than half the smallest positive float32, so the sigmoid rounds to 0."""


class UnusableAnswerError(Exception):
    """An answer does not have the requested form; the message says what was seen."""


class NotFiniteError(Exception):
    """A number is NaN, infinite or null.

    Args:
        position: index of its input in the request.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the value of input {position} of the request is NaN, infinite or null")
        self.position = position


def member(answer: Any, *names: str) -> Any:
    """Return `answer[names[0]][names[1]]...`; raise UnusableAnswerError where a member is absent."""
    for depth, name in enumerate(names):
        if not isinstance(answer, dict) or name not in answer:
            where = ".".join(names[:depth]) or "the answer"
            raise UnusableAnswerError(f"{where} has no {name!r}: {_shown(answer)}")
        answer = answer[name]
    return answer


def in_order(items: Any, count: int, *, index: str, value: str, best_first: bool = False) -> list[Any]:
    """Return one value per input, in the inputs' order.

    Args:
        items: JSON list of objects.
        count: inputs of the request.
        index: member that holds the input's index. If no object has it, the list is in order already, or its
            order is unknown: see `best_first`. An absent or null index beside others is 0, which servers
            written in Go or with protocol buffers leave out.
        value: member to return.
        best_first: whether such lists are sorted by their values. Without indices, values of several inputs
            cannot be told apart then.

    Raises:
        UnusableAnswerError: the list has another form or length, its indices are not 0 to `count` - 1, or a
            sorted one has none.
    """
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnusableAnswerError(f"expected a list of objects, got {_shown(items)}")
    check_count(items, count)
    values = [member(item, value) for item in items]
    if all(item.get(index) is None for item in items):
        if best_first and count > 1:
            raise UnusableAnswerError(
                f"no result has {index!r}, and such servers sort results, so whose they are is unknown"
            )
        return values
    indices = [0 if item.get(index) is None else item[index] for item in items]
    if any(type(found) is not int for found in indices) or sorted(indices) != list(range(count)):
        shown = [found if type(found) is int else type(found).__name__ for found in indices]
        raise UnusableAnswerError(
            f"{index!r} must number the {count} inputs from 0, each once, got {shown!r:.100}"
        )
    ordered: list[Any] = [None] * count
    for position, item_value in zip(indices, values, strict=True):
        ordered[position] = item_value
    return ordered


def relevances(answer: Any, count: int) -> list[Any]:
    """Return one score per input from a rerank answer in the form of Cohere's and Jina's, or of SGLang's.

    The latter is a bare list, whose objects have `score` where the others have `relevance_score`.

    Raises:
        UnusableAnswerError: see `in_order`.
    """
    if isinstance(answer, list):
        return in_order(answer, count, index="index", value="score", best_first=True)
    items = member(answer, "results")
    return in_order(items, count, index="index", value="relevance_score", best_first=True)


def check_count(items: Any, count: int) -> None:
    """Raise UnusableAnswerError unless `items` is a list of `count`."""
    if not isinstance(items, list):
        raise UnusableAnswerError(f"expected a list of {count}, got {_shown(items)}")
    if len(items) != count:
        raise UnusableAnswerError(f"{len(items)} values came back for {count} inputs")


def check_ids_were_computed(answer: Any, tokens: int) -> None:
    """Raise UnusableAnswerError if the answer's `usage` tells of another number of tokens than was sent.

    Fewer are computed where inputs are cut, more where a token is appended, and either behind a gateway that
    makes text of the ids by the tokenizer of another model. A server that counts none, or does not tell, proves
    nothing.

    Args:
        answer: JSON of an answer to token ids, whose number leaves no room for interpretation. Not for text: a
            server may tokenise or estimate it in its own way.
        tokens: how many were sent, over all inputs of the request.
    """
    usage = answer.get("usage") if isinstance(answer, dict) else None
    computed = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(computed) is not int or computed in (0, tokens):
        return
    if computed < tokens:
        seen = "it cuts inputs without a word"
        fix = (
            "raise its maximum length and turn its truncation off, or set max_tokens here to what it reads, "
            "then check it with `qwen3-rag verify --max-tokens`"
        )
    else:
        seen, fix = "it appends tokens to inputs", "turn that off, then check it with `qwen3-rag verify`"
    raise UnusableAnswerError(
        f"the server was sent {tokens} tokens and computed {computed} (its usage.prompt_tokens), so {seen}; "
        f'{fix}. Or a gateway before it makes text of token ids: send it text then (server="openai")'
    )


def only_class(probabilities: Any) -> Any:
    """Return the only element of one input's list of class probabilities."""
    if not isinstance(probabilities, list) or len(probabilities) != 1:
        raise UnusableAnswerError(
            f"{len(probabilities) if isinstance(probabilities, list) else 'no'} classes where a Qwen3 reranker "
            "has one; start vLLM with the hf_overrides that `qwen3-rag serve` prints"
        )
    return probabilities[0]


def vectors(rows: Sequence[Any], hidden_size: int) -> NDArray[np.float32]:
    """Return vectors, given as lists of numbers or in base64, as float32 of shape (n, hidden_size)."""
    made = np.empty((len(rows), hidden_size), dtype=np.float32)
    for position, row in enumerate(rows):
        vector = _from_base64(row) if isinstance(row, str) else numbers(row, position)
        if vector.shape != (hidden_size,):
            raise UnusableAnswerError(
                f"vectors have length {vector.size}, where the model named to us has {hidden_size}: this is "
                "another model, or the server cuts vectors, which must be left to us"
            )
        made[position] = vector
    check_finite(made)
    if not made.any(axis=1).all():
        raise UnusableAnswerError(f"the vector of input {int(made.any(axis=1).argmin())} is all zeros")
    return made


def numbers(values: Any, position: int | None = None) -> NDArray[np.float32]:
    """Return a flat JSON list of numbers as float32, (n,); those out of range become infinite.

    Args:
        values: JSON.
        position: index of the input that all of them belong to; None when each belongs to its own input.

    Raises:
        UnusableAnswerError: it is not a flat list of numbers.
        NotFiniteError: a number is null.
    """
    if not isinstance(values, list):
        raise UnusableAnswerError(f"expected a list of numbers, got {_shown(values)}")
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        raise UnusableAnswerError(f"expected a flat list of numbers, got {_shown(values)}") from None
    if array.dtype == object and None in values:
        # Some JSON libraries write NaN as null.
        raise NotFiniteError(values.index(None) if position is None else position)
    if array.dtype.kind not in "iuf" or array.ndim != 1:
        raise UnusableAnswerError(f"expected a flat list of numbers, got {_shown(values)}")
    with np.errstate(over="ignore"):
        converted: NDArray[np.float32] = array.astype(np.float32)
    return converted


def check_finite(values: NDArray[np.float32]) -> None:
    """Raise NotFiniteError for the first row or number that is NaN or infinite."""
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        raise NotFiniteError(int(finite.argmin()))


def log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ln(p / (1 - p)) of float32 probabilities; 0 and 1 give the limits above, not infinity.

    Above about 10, neighbouring float32 probabilities are far apart in log-odds, so these are coarse; their
    order, and the probabilities computed back from them, stay exact.
    """
    p = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        exact = np.log(p) - np.log1p(-p)
    clipped: NDArray[np.float32] = np.clip(exact, SMALLEST_LOG_ODDS, LARGEST_LOG_ODDS).astype(np.float32)
    return clipped


def scores(values: list[Any], *, are_probabilities: bool) -> NDArray[np.float32]:
    """Return one log-odds per input, float32 (n,), from JSON numbers."""
    found = numbers(values)
    check_finite(found)
    if not are_probabilities:
        return found
    out_of_range = (found < 0) | (found > 1)
    if out_of_range.any():
        at_fault = int(out_of_range.argmax())
        raise UnusableAnswerError(
            f"the score of input {at_fault} is {found[at_fault]:g}, which is no probability; if this server "
            'answers log-odds, set scores="log_odds"'
        )
    return log_odds(found)


def could_be_probabilities(found: NDArray[np.float32]) -> bool:
    """Whether all numbers lie between 0 and 1: a server that was asked for log-odds may give probabilities."""
    return bool(((found >= 0) & (found <= 1)).all())


def telling_input(found: NDArray[np.float32]) -> int:
    """Return the input whose probability tells best whether such numbers are log-odds or probabilities."""
    return int(np.abs(yes_probability(found) - found).argmax())


def settled(
    found: NDArray[np.float32], telling: int, read_second: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return log-odds from numbers that are log-odds or probabilities.

    Args:
        found: float32 (n,), for which `could_be_probabilities`.
        telling: `telling_input` of them.
        read_second: reads the answer of the server when it was asked for that input's probability, (1,).

    Raises:
        NotFiniteError: that is NaN, infinite or null; `position` is `telling`.
        UnusableAnswerError: it has another form.
    """
    try:
        (probability,) = read_second()
    except NotFiniteError:
        raise NotFiniteError(telling) from None
    # Not tested for equality: results of a batch of one can be rounded differently.
    if_log_odds = yes_probability(found)[telling]
    are_log_odds = abs(if_log_odds - probability) < abs(found[telling] - probability)
    return found if are_log_odds else log_odds(found)


def _from_base64(text: str) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error too
        raise UnusableAnswerError(f"a vector, {len(text)} characters, is not valid base64") from None
    if len(data) % 4:
        raise UnusableAnswerError(f"a base64 vector has {len(data)} bytes, which float32 numbers never have")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _shown(value: Any) -> str:
    """Describe a JSON value without quoting texts, which may be private."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:6])) or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {len(value)}" + (f" ({type(value[0]).__name__}, ...)" if value else "")
    return "null" if value is None else f"a {type(value).__name__}"
