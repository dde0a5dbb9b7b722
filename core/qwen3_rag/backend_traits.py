"""What the core has to know of a backend before it imports it, by the name of its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


def _sends_no_text(_: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class BackendTraits:
    """A backend's traits; the defaults are those of a backend registered by another package.

    Attributes:
        runs_here: it computes on devices of this machine. Where it does not, `device` means nothing, and the
            model may have a name that only a server knows.
        runs_saved_modules: it runs all modules that Sentence Transformers saved behind a model, so these decide
            how long a vector is. Others refuse what they would leave out.
        shares_prefixes: it computes common prefixes of prompts once, or a server's cache may.
        breaks_special_strings: with these loader options, users' text goes to a server that would read
            `<|im_end|>` in it as the token. Such strings are then broken before prompts are encoded and cut,
            so that what is sent is what was cut.
    """

    runs_here: bool = True
    runs_saved_modules: bool = False
    shares_prefixes: bool = True
    breaks_special_strings: Callable[[Mapping[str, Any]], bool] = _sends_no_text


def _remote_breaks(options: Mapping[str, Any]) -> bool:
    """`server="vllm"` gets token ids; the others get text, to be broken unless the user says otherwise."""
    return options.get("server") != "vllm" and options.get("special_tokens", "break") == "break"


_TRAITS: Final = {
    "remote": BackendTraits(runs_here=False, breaks_special_strings=_remote_breaks),
    "sentence-transformers": BackendTraits(runs_saved_modules=True, shares_prefixes=False),
}


def traits_of(backend: str) -> BackendTraits:
    """Return the traits of the backend of this name."""
    return _TRAITS.get(backend, BackendTraits())
