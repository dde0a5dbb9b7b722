"""Check that a saved checkpoint expects the token ids that this package makes.

When a plain checkpoint with a chat template is loaded, Sentence Transformers 6.2 passes every text through that
template, and saves this setting with models trained on it. Such a model has learned other inputs than Qwen3's
own, so its results here would differ from the library's. The token ids of one text are compared before the
first use.
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
_MAX_TOKENS: Final = 512
"""More than the sample texts have, so that none is truncated."""


def check_inputs(
    loaded: LoadedModel, checkpoint: Checkpoint, kind: ModelKind, tokenizer: PromptTokenizer
) -> None:
    """Compare the token ids of one text with those that Sentence Transformers makes of it.

    A plain Transformers checkpoint is not checked: it says nothing about its inputs, so this package's are
    taken as right and a chat template is ignored. Nor is a `CrossEncoder` without a chat template, which leaves
    prompts to its callers.

    Args:
        loaded: the model.
        checkpoint: its files.
        kind: embedding compares a document, reranking a query with a document.
        tokenizer: makes this package's ids.

    Raises:
        CheckpointError: they differ; the message says how, and what to do.
    """
    wraps = "message" in loaded.transformer.modality_config
    if not loaded.saved or (kind == "reranking" and not wraps):
        return
    if kind == "embedding":
        prompt = checkpoint.document_prompt
        made = tokenizer.encode_texts([_DOCUMENT], prompt=prompt, max_tokens=_MAX_TOKENS, is_query=False)
        features = loaded.model.preprocess([_DOCUMENT], prompt=prompt)
    else:
        made = tokenizer.encode_pairs(
            [(_QUERY, _DOCUMENT)], instruction=DEFAULT_INSTRUCTION, max_tokens=_MAX_TOKENS
        )
        features = loaded.model.preprocess([(_QUERY, _DOCUMENT)], prompt=DEFAULT_INSTRUCTION)
    ours = made.token_ids[0].tolist()
    theirs = features["input_ids"][0].tolist()
    if ours != theirs:
        reason = _reason(ours, theirs, tokenizer.end_of_text, wraps=wraps)
        raise CheckpointError(
            f"{checkpoint.folder} was saved by Sentence Transformers for other inputs than this package "
            f"gives it: {reason}. Its vectors or scores would differ from that library's. If it was trained on "
            "the Qwen3 prompts anyway, correct its files, or pass "
            'model_kwargs={"accept_other_inputs": True}; otherwise use that library\'s own class'
        )


def _reason(ours: list[int], theirs: list[int], end_of_text: int, *, wraps: bool) -> str:
    if wraps:
        return (
            f"it passes texts through its tokenizer's chat template ({len(theirs)} tokens for a text that has "
            f'{len(ours)} here; "message" in modality_config of sentence_bert_config.json says so)'
        )
    if theirs == ours[:-1]:
        return "its tokenizer does not append <|endoftext|>, whose hidden state is the vector"
    if theirs[-2:] == [end_of_text, end_of_text]:
        return "its tokenizer appends <|endoftext|> twice"
    shorter = min(len(ours), len(theirs))
    index = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    return f"token {index} of a sample text differs ({len(theirs)} tokens there, {len(ours)} here)"
