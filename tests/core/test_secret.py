"""What holds a secret is never written down, and never shown."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from qwen3_rag import Embedder, Reranker
from qwen3_rag.secret import names_secret, without_secrets

KEY = "sk-very-secret"


class PydanticLike:
    """As pydantic's SecretStr."""

    def get_secret_value(self) -> str:
        return KEY


class Written(PydanticLike):
    """Whose to_dict writes what it holds."""

    def to_dict(self) -> dict[str, Any]:
        return {"value": KEY}


class OnlyResolved:
    """As Haystack's Secret, but it cannot be written at all."""

    def resolve_value(self) -> str:
        return KEY


class HaystackLike:
    """As Haystack's Secret: one made of a token refuses to_dict."""

    def __init__(self, variable: str | None) -> None:
        self.variable = variable

    def resolve_value(self) -> str:
        return KEY

    def to_dict(self) -> dict[str, Any]:
        if self.variable is None:
            raise ValueError("Cannot serialize token-based secret.")
        return {"env_vars": [self.variable]}

    def __repr__(self) -> str:
        return f"Secret({KEY})"


SECRET_NAMES = [
    "api_key",
    "apikey",
    "apiKey",
    "API-Key",
    "x-api-key",
    "openai_api_key",
    "token",
    "hf_token",
    "access_token",
    "Auth-Token",
    "secret",
    "client_secret",
    "password",
    "Authorization",
    "proxy-authorization",
    "aws_secret_access_key",
    "accessKey",
    "auth_key",
    "private_key",
    "Secret-Key",
    "Ocp-Apim-Subscription-Key",
    "passwd",
    "ssh_passphrase",
    "credential",
    "azure_credentials",
    "Set-Cookie",
]
OTHER_NAMES = [
    "api_key_env",
    "max_tokens",
    "token_budget",
    "tokenizer",
    *("pad_token", "eos_token", "bos_token", "unk_token", "sep_token", "cls_token", "mask_token", "stop_token"),
    *("image_token", "video_token", "audio_token", "pad_token_id"),
    "password_file",
    "server",
    3,
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_that_say_so_are_known(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_that_only_look_alike_are_not(name: object) -> None:
    assert not names_secret(name)


HOLDERS: list[dict[str, Any]] = [
    {"api_key": PydanticLike()},
    {"api_key": HaystackLike(None)},
    {"api_key": Written()},
    {"api_key": OnlyResolved()},
    {"api_key": [{"nested": PydanticLike()}]},
    {"headers": ({"other": PydanticLike()},)},
    {"api_key": KEY.encode()},
    {"api_key": bytearray(KEY.encode())},
    {"api_key": [KEY, "another"]},
    {"api_keys_of": {"token": [[KEY], [(KEY,)]]}},
    {"headers": [{"a": {"X-Api-Key": KEY}}]},
    *({name: KEY} for name in SECRET_NAMES),
]


@pytest.mark.parametrize("kwargs", HOLDERS)
@pytest.mark.parametrize("kind", [Embedder, Reranker])
def test_a_component_that_holds_a_secret_is_not_pickled(kind: type[Any], kwargs: dict[str, Any]) -> None:
    component = kind(backend="remote", model_kwargs=kwargs)
    with pytest.raises(TypeError, match="api_key_env") as caught:
        pickle.dumps(component)
    assert KEY not in str(caught.value)
    assert copy.deepcopy(component).arguments["model_kwargs"] == kwargs


def test_the_error_names_the_secrets_place() -> None:
    component = Embedder(model_kwargs={"headers": [{"Authorization": KEY}]})
    with pytest.raises(TypeError, match=r"model_kwargs\['headers'\]\[0\]\['Authorization'\] holds a secret"):
        pickle.dumps(component)


@pytest.mark.parametrize("kwargs", HOLDERS)
def test_what_is_written_leaves_secrets_out_and_nothing_else(kwargs: dict[str, Any]) -> None:
    other = {"url": "http://x", "token_budget": 5, "use_auth_token": True, "config": object()}
    other |= {"urls": ["http://x", "http://y"]}
    written = without_secrets({**kwargs, **other})
    assert KEY not in str(written)
    assert not any(isinstance(part, PydanticLike | HaystackLike | OnlyResolved) for part in written.values())
    assert {name: written[name] for name in other} == other


def test_leaving_out_changes_no_argument() -> None:
    kwargs = {"api_key": KEY, "headers": [{"token": KEY}]}
    without_secrets(kwargs)
    assert kwargs == {"api_key": KEY, "headers": [{"token": KEY}]}


def test_the_name_of_a_variable_may_be_pickled() -> None:
    component = Embedder(backend="remote", model_kwargs={"api_key": HaystackLike("NAME")})
    assert KEY.encode() not in pickle.dumps(component)


def test_no_repr_shows_a_secret() -> None:
    component = Embedder(backend="remote", model_kwargs={"api_key": HaystackLike(None)})
    assert KEY not in repr(component)
    assert KEY not in repr(component._settings)
    assert KEY not in component._settings.key


@dataclass(frozen=True)
class Variable:
    name: str


def test_equal_options_share_an_engine_and_others_do_not() -> None:
    one, twin, other = (
        Embedder(model_kwargs={"api_key": Variable(name)})._settings.key for name in ("A", "A", "B")
    )
    assert one == twin != other
