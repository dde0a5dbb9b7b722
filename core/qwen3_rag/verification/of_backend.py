"""Verification of a backend in this process, a third party's too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwen3_rag.errors import BackendError, NonFiniteOutputError
from qwen3_rag.models import ModelKind
from qwen3_rag.plugins import load_backend
from qwen3_rag.prompts import EmbeddingWords, RerankingWords
from qwen3_rag.ranking import yes_probability
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt
from qwen3_rag.verification.diagnosis import finding
from qwen3_rag.verification.embedding_faults import Text
from qwen3_rag.verification.matching import Floats
from qwen3_rag.verification.report import Check, Report
from qwen3_rag.verification.subject import ASKED_ALONE, Input, Subject

_PATH = "token ids"


def verify_backend(subject: Subject, settings: EngineSettings) -> Report:
    """Run the texts through a backend, and compare.

    Args:
        subject: what is right.
        settings: the backend's.

    Raises:
        Qwen3RagError: the backend cannot be loaded, fails, or gives values of another form than its kind's.
    """
    backend = load_backend(settings)
    try:
        made = [_prompt(one, subject.instruction, index) for index, one in enumerate(subject.inputs)]
        values, *each = [
            backend.run(prompts).values for prompts in (made, *([one] for one in made[:ASKED_ALONE]))
        ]
        _check_shapes([values, *each], len(made), subject.kind)
        alone = np.concatenate(each)
        if subject.kind == "reranking":
            values, alone = yes_probability(values), yes_probability(alone)
        check = subject.check(_PATH, values, alone)
    except NonFiniteOutputError as error:
        found = finding("not-finite", str(error))
        check = Check(_PATH, 0, 0, None, subject.measure, subject.tolerance, (found,))
    finally:
        backend.close()
    return Report(f'backend "{settings.backend}"', settings.model, subject.kind, (check,))


def _check_shapes(found: Sequence[Floats], prompts: int, kind: ModelKind) -> None:
    """Raise BackendError unless all prompts, and then single ones, got vectors of one length, or numbers."""
    row = found[0].shape[1:]
    shapes = [values.shape for values in found]
    if len(row) != (kind == "embedding") or shapes != [(prompts, *row), *[(1, *row)] * (len(found) - 1)]:
        raise BackendError(
            f"the backend must give a prompt {'a vector' if kind == 'embedding' else 'a number'}, all of one "
            f"shape; for {prompts} prompts and for one it gave {' and '.join(map(str, dict.fromkeys(shapes)))}"
        )


def _prompt(one: Input, instruction: str, index: int) -> Prompt:
    ids = np.array(one.token_ids, dtype=np.int32)
    if isinstance(one.words, Text):
        return Prompt(ids, EmbeddingWords(one.words.prompt, one.words.text, one.words.is_query), index)
    return Prompt(ids, RerankingWords(instruction, *one.words), index)
