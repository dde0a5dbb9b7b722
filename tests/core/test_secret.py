"""What holds a secret is never written down, and never shown."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from qwen3_rag import Embedder, Reranker

KEY = "sk-very-secret"


class PydanticLike:
    """As pydantic's SecretStr."""

    def get_secret_value(self) -> str:
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


@pytest.mark.parametrize("secret", [PydanticLike(), HaystackLike(None), [{"nested": PydanticLike()}], KEY])
@pytest.mark.parametrize("kind", [Embedder, Reranker])
def test_a_component_that_holds_a_secret_is_not_pickled(kind: type[Any], secret: Any) -> None:
    component = kind(backend="remote", model_kwargs={"api_key": secret})
    with pytest.raises(TypeError, match="api_key_env") as caught:
        pickle.dumps(component)
    assert KEY not in str(caught.value)
    assert copy.deepcopy(component).arguments["model_kwargs"] == {"api_key": secret}


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
