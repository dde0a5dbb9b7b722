"""Does a saved checkpoint make the same token ids as this package?

Sentence Transformers 6.2 passes every text through the tokenizer's chat template when a plain
checkpoint that has one is loaded, and saves that with what is trained on it. Such a checkpoint has
learned other inputs than Qwen3's own, and gives other numbers here than in that library. What is
read from ids is compared on one text, before the first use.
"""

from __future__ import annotations

from typing import Final

from qwen3_rag.backends.sentence_transformers.loading import LoadedModel
from qwen3_rag.checkpoint import Checkpoint
from qwen3_rag.errors import CheckpointError
from qwen3_rag.instructions import DEFAULT_INSTRUCTION
from qwen3_rag.models import ModelKind
from qwen3_rag.tokenization import PromptTokenizer

_QUERY: Final = "What is the capital of China?"
_DOCUMENT: Final = "The capital of China is Beijing."
_ROOM: Final = 512


def check_inputs(
    loaded: LoadedModel, checkpoint: Checkpoint, kind: ModelKind, tokenizer: PromptTokenizer
) -> None:
    """Compare the token ids of one text with those that Sentence Transformers makes of it.

    A plain Transformers checkpoint is not checked: nobody said how its inputs look, so this
    package's are right and the chat template is simply not used. Nor is a `CrossEncoder` without a
    chat template, which leaves prompts to its callers.

    Args:
        loaded: the model.
        checkpoint: its files.
        kind: embedding compares a document, reranking a query with a document.
        tokenizer: makes this package's ids.

    Raises:
        CheckpointError: they differ; says how, and what to do.
    """
    wraps = "message" in loaded.transformer.modality_config
    if not loaded.saved or (kind == "reranking" and not wraps):
        return
    if kind == "embedding":
        prompt = checkpoint.document_prompt
        made = tokenizer.encode_texts([_DOCUMENT], prompt=prompt, max_tokens=_ROOM, is_query=False)
        features = loaded.model.preprocess([_DOCUMENT], prompt=prompt)
    else:
        made = tokenizer.encode_pairs([(_QUERY, _DOCUMENT)], instruction=DEFAULT_INSTRUCTION, max_tokens=_ROOM)
        features = loaded.model.preprocess([(_QUERY, _DOCUMENT)], prompt=DEFAULT_INSTRUCTION)
    ours = made.token_ids[0].tolist()
    theirs = features["input_ids"][0].tolist()
    if ours != theirs:
        reason = _reason(ours, theirs, tokenizer.end_of_text, wraps=wraps)
        raise CheckpointError(
            f"{checkpoint.folder} was saved with Sentence Transformers with other inputs than this package "
            f"gives it: {reason}. Its vectors or scores would differ from that library's. If you trained it on "
            "the Qwen3 prompts all the same, correct its files, or pass "
            'model_kwargs={"accept_other_inputs": True}; else use that library\'s own class'
        )


def _reason(ours: list[int], theirs: list[int], end_of_text: int, *, wraps: bool) -> str:
    if wraps:
        return (
            f"it passes texts through its tokenizer's chat template ({len(theirs)} tokens for a text that has "
            f'{len(ours)} here; "message" in modality_config of sentence_bert_config.json says so)'
        )
    if theirs == ours[:-1]:
        return "its tokenizer does not append <|endoftext|>, at which the vector is read"
    if theirs[-2:] == [end_of_text, end_of_text]:
        return "its tokenizer appends <|endoftext|> twice"
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
    return f"token {place} of a sample text is another ({len(theirs)} tokens there, {len(ours)} here)"
