"""Words for servers that take text: who renders the template, and what becomes of special strings."""

from __future__ import annotations

from collections.abc import Callable

from qwen3_rag.backends.remote.options import RemoteOptions
from qwen3_rag.errors import ConfigurationError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.prompts import RerankingWords, break_added_tokens, rerank_halves


def user_text(options: RemoteOptions) -> Callable[[str], str]:
    """Return what is done to users' text before a server tokenises it.

    With `special_tokens="break"`, `<|im_end|>` becomes `< |im_end|>`: a document cannot close its turn. Of a
    component's prompts that is done already, before they are cut (`EngineSettings.breaks_special_strings`);
    then nothing changes here, but where a query's prompt and its text form such a string together.
    """
    return break_added_tokens if options.special_tokens == "break" else lambda text: text


def query_and_document(words: RerankingWords, options: RemoteOptions) -> tuple[str, str]:
    """Return what goes into a rerank request's fields for query and document.

    With `template="client"` the two, put together, are the whole prompt: see `rerank_halves`.
    """
    mend = user_text(options)
    if options.template == "server":
        return mend(words.query), mend(words.document)
    return rerank_halves(mend(words.instruction), mend(words.query), mend(words.document))


class InstructionNotSentError(ConfigurationError):
    """A server cannot be told the instruction of a call. Calls with the default one are not concerned."""

    concerns_every_prompt = False


def instruction_fields(words: RerankingWords, options: RemoteOptions) -> dict[str, str]:
    """Return the request's field for the instruction, if it has one."""
    if options.template == "client" or options.instruction_field is None:
        return {}
    return {options.instruction_field: user_text(options)(words.instruction)}


def check_instruction(words: RerankingWords, options: RemoteOptions) -> None:
    """Raise InstructionNotSentError if the server renders the template and cannot be told the instruction."""
    if options.template == "client" or options.instruction_field is not None:
        return
    if words.instruction != DEFAULT_INSTRUCTION:
        raise InstructionNotSentError(
            'with template="server" and no instruction_field, the server always uses the default instruction, '
            f"got {words.instruction!r:.80}; name the request's field for it with instruction_field"
        )


def check_template(options: RemoteOptions) -> None:
    """Raise ConfigurationError unless it is said who renders the rerank template."""
    if options.template is None:
        raise ConfigurationError(
            f'reranking with server={options.server!r} needs template: "client" when the server joins query '
            'and document as they come, "server" when it puts them into Qwen3\'s rerank template itself. '
            "Applied twice or never, scores are wrong and nothing else shows it"
        )


def check_no_template(options: RemoteOptions, who: str) -> None:
    """Raise ConfigurationError when options for text rerankers were given where they mean nothing."""
    for name, unset in (("template", None), ("instruction_field", None), ("scores", "probability")):
        if getattr(options, name) != unset:
            raise ConfigurationError(f"{name} means nothing here: {who}; leave it out")
