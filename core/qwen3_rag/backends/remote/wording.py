"""From what a server answered, or did not, to values or an error: which class it is, and what it says."""

from __future__ import annotations

from typing import Final

from qwen3_rag.backends.remote.connections import proxy_variable
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
from qwen3_rag.backends.remote.messages import error_within, parsed_json
from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.retry import may_be_one_input
from qwen3_rag.backends.remote.servers import Call, Values
from qwen3_rag.backends.remote.servers.answers import NotFiniteError, UnusableAnswerError
from qwen3_rag.backends.remote.tries import Answer, Failure

_QUOTED: Final = 300
"""Characters of a server's message that an error quotes."""

_ADVICE: Final = {
    401: "the API key is absent or wrong: name its environment variable with api_key_env",
    403: "the API key does not allow this",
    404: "wrong base_url, path, served_model, or a server started for the other kind of model",
}


def read(answer: Answer, call: Call, url: str, key: ApiKey | None) -> Values | Call:
    """Return an answer's values, or the call that it leads to.

    Args:
        answer: to `call`.
        call: says how it is read.
        url: where it came from.
        key: what no error may show.

    Raises:
        RemoteAnswerError: naming the URL and what was seen.
    """
    parsed = parsed_json(answer.content)
    if parsed is None:
        begins = hidden(answer.content.decode(errors="replace"), key)[:60]
        seen = f"the answer is not JSON: {len(answer.content)} bytes that begin with {begins!r}"
        raise RemoteAnswerError(f"{url}: {seen}", url=url, status=200)
    try:
        return call.read(parsed)
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
    """Return the error for a failure that another try would not mend."""
    if failure.status == 200:
        return RemoteAnswerError(f"{url}: {failure.text}", url=url, status=200)
    advice = _ADVICE.get(failure.status if failure.status is not None else 0)
    if failure.status is not None and 300 <= failure.status < 400:
        advice = "redirects are not followed: give the URL that it leads to"
    is_setup = failure.status is None or not may_be_one_input(failure.status)
    kind = RemoteSetupError if is_setup else RemoteRefusalError
    return kind(f"{url}: {failure.text}" + (f" ({advice})" if advice else ""), url=url, status=failure.status)


def unavailable(failure: Failure, url: str, tries: int, options: RemoteOptions) -> RemoteError:
    """Return the error for the last of so many tries."""
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
    """Return the error for a request whose next try, after `wait` seconds, would come too late."""
    return RemoteTimeoutError(
        f"{url}: {seen}; the next try would be {wait:.3g} s from now, after the deadline of "
        f"{options.deadline:g} s",
        url=url,
    )


def never_sent(options: RemoteOptions) -> RemoteError:
    """Return the error for a request that got no turn."""
    return RemoteTimeoutError(
        f"no connection became free, and no right answer came to another request, within the "
        f"deadline of {options.deadline:g} s"
    )


def hidden(text: str, key: ApiKey | None) -> str:
    """Return a text without the key, if there is one."""
    return key.hide_in(text) if key is not None else text


def quoted(said: str, key: ApiKey | None) -> str:
    """Return what an error quotes of a server's message. A key goes first: no half of it may stay."""
    return hidden(said, key)[:_QUOTED]


def through_proxy(url: str) -> str:
    """Return words for the proxy that requests to a URL go through; none if they go straight."""
    variable = proxy_variable(url)
    return f" through the proxy set in {variable}" if variable is not None else ""
