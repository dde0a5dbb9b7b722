"""From an answer to values, and from a failure to our error: its class and its message."""

from __future__ import annotations

from typing import Final

from qwen3_rag.backends.remote.attempts import Answer, Failure
from qwen3_rag.backends.remote.error_text import error_within, hidden, parsed_json, quoted
from qwen3_rag.backends.remote.errors import (
    RemoteAnswerError,
    RemoteError,
    RemoteNonFiniteError,
    RemoteRefusalError,
    RemoteSetupError,
    RemoteTimeoutError,
    RemoteUnavailableError,
)
from qwen3_rag.backends.remote.keys import ApiKey
from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.retry import may_be_one_input
from qwen3_rag.backends.remote.servers import Request, Values
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError

_NOT_JSON_QUOTED: Final = 60
"""Characters that an error quotes of an answer that is not JSON: enough to tell an HTML page."""

_ADVICE: Final = {
    401: "the API key is absent or wrong: name its environment variable with api_key_env",
    403: "the API key does not allow this",
    404: "wrong base_url, path, served_model, or a server started for the other kind of model",
}
"""HTTP status -> what usually causes it."""


def parse_answer(answer: Answer, request: Request, url: str, key: ApiKey | None) -> Values | Request:
    """Return an answer's values, or the further request that it requires.

    Args:
        answer: to `request`.
        request: knows how its answer is read.
        url: where it came from.
        key: must show in no error.

    Raises:
        RemoteAnswerError: it cannot be right; the message names the URL and what was seen.
    """
    parsed = parsed_json(answer.content)
    if parsed is None:
        begins = hidden(answer.content.decode(errors="replace"), key)[:_NOT_JSON_QUOTED]
        seen = f"the answer is not JSON: {len(answer.content)} bytes that begin with {begins!r}"
        raise RemoteAnswerError(f"{url}: {seen}", url=url, status=200)
    try:
        return request.read_answer(parsed)
    except UnusableAnswerError as error:
        said = error_within(parsed)
        told = (
            hidden(f"{error}", key) if said is None else f"status 200, but an error within: {quoted(said, key)}"
        )
        raise RemoteAnswerError(f"{url}: {told}", url=url, status=200) from None
    except NotFiniteError as error:
        raise RemoteNonFiniteError(
            f"{url}: {error}; the server's weights may be damaged, or float16 overflows there (start it "
            "with bfloat16 or float32)",
            url=url,
            status=200,
            position=error.position,
        ) from None


def refusal(failure: Failure, url: str) -> RemoteError:
    """Return the error for a failure that would only repeat itself."""
    status = failure.status
    assert status is not None, "where no response came, the request is sent again"
    if status == 200:
        return RemoteAnswerError(f"{url}: {failure.text}", url=url, status=status)
    advice = _ADVICE.get(status)
    if 300 <= status < 400:
        advice = "redirects are not followed: give the URL that it leads to"
    kind = RemoteRefusalError if may_be_one_input(status) else RemoteSetupError
    return kind(f"{url}: {failure.text}" + (f" ({advice})" if advice else ""), url=url, status=status)


def unavailable(failure: Failure, url: str, tries: int, options: RemoteOptions) -> RemoteError:
    """Return the error for a request that failed in so many tries; `failure` is the last."""
    others = len(options.base_url) - 1
    advice = ""
    if failure.is_untrusted:
        advice = "; name the file of the authority that signed it with SSL_CERT_FILE"
    elif failure.is_slow:
        advice = "; if the server is alive and this slow, raise timeout"
    return RemoteUnavailableError(
        f"{url}: {failure.text}; gave up after {tries} {'tries' if tries > 1 else 'try'} "
        f"(max_retries={options.max_retries})"
        + (f", of which some went to the {others} other base URLs" if others else "")
        + advice,
        url=url,
        status=failure.status,
    )


def out_of_time(seen: str, url: str, wait: float, options: RemoteOptions) -> RemoteError:
    """Return the error for a request whose next try, in `wait` seconds, would come after the deadline."""
    return RemoteTimeoutError(
        f"{url}: {seen}; the next try would be {wait:.3g} s from now, after the deadline of "
        f"{options.deadline:g} s",
        url=url,
    )


def never_sent(options: RemoteOptions) -> RemoteError:
    """Return the error for a request that was never sent, since no turn came for it."""
    return RemoteTimeoutError(
        f"no connection became free, and no right answer came to another request, within the "
        f"deadline of {options.deadline:g} s"
    )
