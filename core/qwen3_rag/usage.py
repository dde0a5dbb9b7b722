"""What a call cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Tokens and texts of one call, or of several added up.

    Attributes:
        texts: inputs given (texts for an `Embedder`, pairs for a `Reranker`).
        prompt_tokens: tokens of all prompts as the model is to see them, templates included.
        computed_tokens: tokens that really passed through the model's layers.
        truncated_texts: inputs whose document was cut to fit `max_tokens`.
    """

    texts: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    truncated_texts: int = 0

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that were not computed again, being a prefix shared with another prompt."""
        return self.prompt_tokens - self.computed_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.texts + other.texts,
            self.prompt_tokens + other.prompt_tokens,
            self.computed_tokens + other.computed_tokens,
            self.truncated_texts + other.truncated_texts,
        )

    def __sub__(self, earlier: Usage) -> Usage:
        """Return what was added since `earlier`."""
        return Usage(
            self.texts - earlier.texts,
            self.prompt_tokens - earlier.prompt_tokens,
            self.computed_tokens - earlier.computed_tokens,
            self.truncated_texts - earlier.truncated_texts,
        )
