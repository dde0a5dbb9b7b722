"""Errors of the remote backend.

BackendError (RuntimeError)
└── RemoteError
    ├── RemoteUnavailableError (ConnectionError)  no base URL answered; the last failure is told
    ├── RemoteTimeoutError (TimeoutError)         no right answer came within the deadline
    ├── RemoteRefusalError                        the server refused this request (4xx), or fails (500) on
    │   │                                         this text and on no other
    │   └── RemoteSetupError                      ... refuses every request: key, path, model name
    └── RemoteAnswerError                         it answered 200 with something that cannot be right
        └── RemoteNonFiniteError (NonFiniteOutputError)  ... with NaN, infinity or null

No error of this package holds an HTTP client's exception: those carry the request, and the request
carries the API key.
"""

from __future__ import annotations

from qwen3_rag.errors import BackendError, NonFiniteOutputError


class RemoteError(BackendError):
    """A server gave no right answer.

    Args:
        message: what was seen and what helps.
        url: endpoint that was asked; never holds credentials.
        status: HTTP status, None when there was no answer.
        position: index of the text or pair at fault in the caller's list; None when it is not known.
    """

    def __init__(
        self, message: str, *, url: str | None = None, status: int | None = None, position: int | None = None
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.position = position


class RemoteUnavailableError(RemoteError, ConnectionError):
    """No base URL could be reached, or all kept failing."""

    concerns_every_prompt = True


class RemoteTimeoutError(RemoteError, TimeoutError):
    """The deadline passed without a right answer."""

    concerns_every_prompt = True


class RemoteRefusalError(RemoteError):
    """A server refused a request, and would refuse it again; or it fails on this text and on no other."""


class RemoteSetupError(RemoteRefusalError):
    """A server refuses whatever it is asked: the key, the path, the model's name or the server is wrong."""

    concerns_every_prompt = True


class RemoteAnswerError(RemoteError):
    """A server's answer cannot be right: malformed, too few or too many values, wrong length, inputs cut."""


class RemoteNonFiniteError(RemoteAnswerError, NonFiniteOutputError):
    """A server answered NaN, infinity or null instead of a number."""
