"""Text for servers that take text: who renders the template, and how special strings are handled."""

from __future__ import annotations

from collections.abc import Callable

from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.backends.remote.servers.base import reranking_words
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import RerankingWords, break_added_tokens, rerank_halves
from qwen3_rag.tokens import Prompt


def text_as_sent(options: RemoteOptions) -> Callable[[str], str]:
    """Return the function from a user's text to what is sent of it, for servers that tokenise text.

    With `special_tokens="break"`, `<|im_end|>` becomes `< |im_end|>`, so that a document cannot close its turn.
    Components have done that already, before cutting (`EngineSettings.breaks_special_strings`); here it only
    affects a string that a query's prompt and text form together, and prompts of other callers.
    """
    return break_added_tokens if options.special_tokens == "break" else lambda text: text


def query_and_document(words: RerankingWords, options: RemoteOptions) -> tuple[str, str]:
    """Return the values of a rerank request's fields for query and document.

    With `template="client"` their concatenation is the whole prompt: see `rerank_halves`.
    """
    as_sent = text_as_sent(options)
    if options.template == "server":
        return as_sent(words.query), as_sent(words.document)
    return rerank_halves(as_sent(words.instruction), as_sent(words.query), as_sent(words.document))


class InstructionNotSentError(ConfigurationError):
    """A server cannot be told a call's instruction. Calls with the default instruction are not affected."""

    concerns_every_prompt = False


def instruction_fields(words: RerankingWords, options: RemoteOptions) -> dict[str, str]:
    """Return the request's field for the instruction; {} if it has none."""
    if options.template == "client" or options.instruction_field is None:
        return {}
    return {options.instruction_field: text_as_sent(options)(words.instruction)}


def instruction_check(options: RemoteOptions) -> Callable[[Prompt], None]:
    """Return `Dialect.check` for rerankers.

    It raises InstructionNotSentError if the server renders the template and cannot be told the instruction.
    """

    def check(prompt: Prompt) -> None:
        instruction = reranking_words(prompt).instruction
        if options.template == "client" or options.instruction_field is not None:
            return
        if instruction != DEFAULT_INSTRUCTION:
            raise InstructionNotSentError(
                'with template="server" and no instruction_field, the server always uses the default '
                f"instruction, got {instruction!r:.80}; name the request's field for it with instruction_field"
            )

    return check


def check_template(options: RemoteOptions) -> None:
    """Raise ConfigurationError unless the options say who renders the rerank template."""
    if options.template is None:
        raise ConfigurationError(
            f'reranking with server={options.server!r} needs template: "client" when the server joins query '
            'and document as they come, "server" when it puts them into Qwen3\'s rerank template itself. '
            "Applied twice or never, scores are wrong and nothing else shows it"
        )


def check_no_template(options: RemoteOptions, who: str) -> None:
    """Raise ConfigurationError if options for text rerankers were given where they do not apply."""
    for name, unset in (("template", None), ("instruction_field", None), ("scores", "probability")):
        if getattr(options, name) != unset:
            raise ConfigurationError(f"{name} means nothing here: {who}; leave it out")
