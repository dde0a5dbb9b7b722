"""Secrets in options: what is one, and how it is kept out of what is written down.

One rule for the core and all adapters. A secret is

- an object that wraps one: it has `get_secret_value` (pydantic's SecretStr) or `resolve_value` (Haystack's
  Secret);
- a string under a name that says so (`api_key`, `hf_token`, `X-Api-Key`, `Authorization`, `client-secret`),
  or in a list under such a name.

Both at any depth of mappings, lists and tuples. Other objects are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_ENDINGS: Final = (
    "apikey",
    "accesskey",
    "authkey",
    "privatekey",
    "secretkey",
    "subscriptionkey",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "credential",
    "credentials",
    "cookie",
)
"""How names of secrets end, in small letters and without `-` and `_`."""

_CONTROL_TOKEN: Final = re.compile(r"(pad|eos|bos|unk|sep|cls|mask|stop|image|video|audio)token")
"""Names that end like a secret's and are a tokenizer's."""


def names_secret(name: object) -> bool:
    """Whether a string of this name is a secret; `api_key_env` is not one: it names a variable."""
    if not isinstance(name, str):
        return False
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return letters.endswith(_ENDINGS) and not _CONTROL_TOKEN.fullmatch(letters)


def secrets_in(value: Any, path: str, *, is_named: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield each secret inside a value, with its place.

    Args:
        value: options, or a part of them.
        path: what the value is called; an entry's place is written like `path['headers'][0]`.
        is_named: whether the value stands under a name that says it is a secret.
    """
    if _is_secret(value, is_named):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from secrets_in(part, f"{path}[{name!r}]", is_named=names_secret(name))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from secrets_in(part, f"{path}[{i}]", is_named=is_named)


def without_secrets(value: Any, *, is_named: bool = False) -> Any:
    """Return a value with all secrets left out of its mappings and lists; other parts are the same objects.

    Args:
        value: options, or a part of them; never changed. Tuples come back as lists.
        is_named: whether it stands under a name that says it is a secret.
    """
    if isinstance(value, Mapping):
        return {
            name: without_secrets(part, is_named=names_secret(name))
            for name, part in value.items()
            if not _is_secret(part, names_secret(name))
        }
    if isinstance(value, list | tuple):
        return [without_secrets(part, is_named=is_named) for part in value if not _is_secret(part, is_named)]
    return value


def check_no_secret(options: Mapping[str, Any] | None, name: str = "model_kwargs") -> None:
    """Refuse to pickle options that hold a secret's value; an environment variable's name is not one.

    Haystack's Secret may be such a name: it refuses `to_dict` when it holds the value itself.

    Args:
        options: by name.
        name: what they are called, for the error.

    Raises:
        TypeError: an option holds a secret. The message names the option and never the value.
    """
    for path, secret in secrets_in(options, name):
        if not _names_a_variable(secret):
            raise TypeError(
                f"{path} holds a secret, which a pickle would write down; leave it out and name its "
                "environment variable instead (api_key_env of the remote backend; HF_TOKEN is read by itself)"
            )


def _is_secret(value: Any, is_named: bool) -> bool:
    if isinstance(value, str | bytes | bytearray):
        return is_named
    return hasattr(value, "get_secret_value") or hasattr(value, "resolve_value")


def _names_a_variable(secret: Any) -> bool:
    if not hasattr(secret, "resolve_value"):
        return False
    try:
        secret.to_dict()
    except (AttributeError, ValueError):
        return False
    return True
