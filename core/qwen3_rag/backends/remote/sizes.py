"""How large a request servers accept, learnt from what they refuse. For one event loop, so without a lock."""

from __future__ import annotations


class AcceptedSizes:
    """Limits of a request's size, lowered where servers refuse what they accept in halves.

    Why a request was refused is not read from the server's words. One that has no more inputs and no more
    tokens than others that were accepted is not refused for its size, so it lowers nothing: refusals for
    another reason, however often they come, do not make requests ever smaller.

    Args:
        inputs: most inputs of a request, as configured.
        tokens: most tokens of a request, as configured.

    Attributes:
        max_inputs: most inputs of a request now.
        max_tokens: most tokens of a request of several inputs now.
    """

    def __init__(self, *, inputs: int, tokens: int) -> None:
        self.max_inputs, self.max_tokens = inputs, tokens
        self._accepted_inputs = self._accepted_tokens = 0

    def allow(self, inputs: int, tokens: int) -> bool:
        """Whether a request of this size keeps to the limits; a single input always does."""
        return inputs == 1 or (inputs <= self.max_inputs and tokens <= self.max_tokens)

    def note_accepted(self, inputs: int, tokens: int) -> None:
        """Record that a request was answered."""
        self._accepted_inputs = max(self._accepted_inputs, inputs)
        self._accepted_tokens = max(self._accepted_tokens, tokens)

    def note_refused(self, inputs: int, tokens: int) -> None:
        """Adapt to a request that was refused while both its halves, noted before, were accepted.

        Where the number of inputs and that of tokens may both be the reason, inputs are taken for it: servers
        commonly limit those. If it was the tokens, the next refusal tells, since as many inputs have passed.
        """
        if inputs > self._accepted_inputs:
            self.max_inputs = min(self.max_inputs, self._accepted_inputs)
        elif tokens > self._accepted_tokens:
            self.max_tokens = min(self.max_tokens, self._accepted_tokens)
