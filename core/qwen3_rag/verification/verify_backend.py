"""Verification of a backend in this process, third parties' included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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

_PATH: Final = "token ids"


def verify_backend(subject: Subject, settings: EngineSettings) -> Report:
    """Run a backend on the subject's inputs, and compare.

    Args:
        subject: the inputs, and what is right for them.
        settings: of the backend.

    Raises:
        Qwen3RagError: the backend cannot be loaded, fails, or returns values of another form than its kind's.
    """
    backend = load_backend(settings)
    try:
        prompts = [_prompt(one, subject.instruction, index) for index, one in enumerate(subject.inputs)]
        runs = (prompts, *([prompt] for prompt in prompts[:ASKED_ALONE]))
        values, *single = [backend.run(run).values for run in runs]
        _check_shapes([values, *single], len(prompts), subject.kind)
        alone = np.concatenate(single)
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
    """Raise BackendError unless the first run and the single ones gave vectors of one length, or numbers.

    Args:
        found: values of a run of all prompts, then of runs of one prompt.
        prompts: number of all prompts.
        kind: of the model.
    """
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
