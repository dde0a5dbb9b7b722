"""A vLLM engine as a backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwen3_rag.backends.base import BackendOutput
from qwen3_rag.backends.device.memory import ACCELERATOR_TOKEN_BUDGET, CPU_TOKEN_BUDGET
from qwen3_rag.backends.device.out_of_memory import is_out_of_memory
from qwen3_rag.backends.vllm.arguments import EngineArguments, engine_arguments
from qwen3_rag.backends.vllm.engine import OfflineEngine, ParallelEngine, PoolingEngine
from qwen3_rag.backends.vllm.errors import VllmDiedError, VllmStartError
from qwen3_rag.backends.vllm.lifecycle import refuse_script_without_guard, runs_apart
from qwen3_rag.backends.vllm.options import parse_options
from qwen3_rag.checkpoint import open_checkpoint
from qwen3_rag.errors import ConfigurationError, PromptTooLongError, Qwen3RagError
from qwen3_rag.models import ModelKind
from qwen3_rag.settings import EngineSettings
from qwen3_rag.tokens import Prompt


def create(settings: EngineSettings) -> VllmBackend:
    """Start vLLM as the settings say. Entry point `vllm` of `qwen3_rag.backends`.

    Raises:
        ConfigurationError: an option or the device is wrong, or vLLM refuses its arguments.
        CheckpointError: the model's files are absent or not those of a Qwen3 model.
        VllmStartError: vLLM could not start.
    """
    refuse_script_without_guard()
    options = parse_options(settings.loader_options)
    checkpoint = open_checkpoint(settings, weights=True)
    arguments = engine_arguments(settings, checkpoint, options)
    budget = CPU_TOKEN_BUDGET if arguments.device.type == "cpu" else ACCELERATOR_TOKEN_BUDGET
    budget = max(budget, arguments.max_model_len) * options.data_parallel_size
    return VllmBackend(
        settings.kind,
        arguments,
        hidden_size=checkpoint.hidden_size,
        parallel=options.data_parallel_size > 1,
        token_budget=budget if settings.token_budget is None else settings.token_budget,
    )


class VllmBackend:
    """A vLLM engine, started again after its process died.

    Args:
        kind: what to read at the last token.
        arguments: of the engine.
        hidden_size: length of an embedding model's vectors.
        parallel: run several copies of the model.
        token_budget: tokens that one `run` should bring.

    Attributes:
        concurrency: 1; vLLM batches what one `run` brings.
        token_budget: as given.
        device: a torch device; its index is None where vLLM chooses.
        dtype: name of the element type, such as "bfloat16".
    """

    concurrency = 1

    def __init__(
        self,
        kind: ModelKind,
        arguments: EngineArguments,
        *,
        hidden_size: int,
        parallel: bool,
        token_budget: int,
    ) -> None:
        self.token_budget = token_budget
        self.device = arguments.device
        self.dtype: str = arguments.values["dtype"]
        self._kind = kind
        self._arguments = arguments
        self._hidden_size = hidden_size
        self._parallel = parallel
        self._engine: PoolingEngine | None = self._start()

    def run(self, prompts: Sequence[Prompt]) -> BackendOutput:
        """Run prompts; see `Backend.run`.

        Raises:
            PromptTooLongError: a prompt is longer than `max_model_len`.
            VllmDiedError: vLLM's process died; the next call starts another.
            VllmStartError: that one could not start.
            BackendError: vLLM refused a prompt.
        """
        self._check_lengths(prompts)
        if self._engine is None:
            self._engine = self._start()
        try:
            pooled = self._engine.pool([prompt.token_ids.tolist() for prompt in prompts])
        except Exception as error:
            if not _is_dead(error):
                raise
            died = VllmDiedError(
                f"vLLM's process for {self._arguments.values['model']} died, and what it was computing is "
                "lost; the next call starts another (out of memory is the usual reason)"
            )
            try:
                self.close()
            except Exception as while_stopping:
                raise died from while_stopping  # whose own context is `error`
            raise died from error
        computed = [len(p.token_ids) - one.cached for p, one in zip(prompts, pooled, strict=True)]
        width = self._hidden_size if self._kind == "embedding" else 1
        values = np.array([one.values for one in pooled], dtype=np.float32).reshape(len(prompts), width)
        return BackendOutput(
            values if self._kind == "embedding" else values[:, 0], np.array(computed, dtype=np.int64)
        )

    def close(self) -> None:
        """Stop the engine and wait for its processes to end."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()

    def _check_lengths(self, prompts: Sequence[Prompt]) -> None:
        most = self._arguments.max_model_len
        for prompt in prompts:
            if len(prompt.token_ids) > most:
                tokens = len(prompt.token_ids)
                raise PromptTooLongError(
                    f"text {prompt.index} makes a prompt of {tokens} tokens, more than vLLM's "
                    f'max_model_len={most}; give model_kwargs={{"max_model_len": {tokens}}} or more, or lower '
                    "max_tokens"
                )

    def _start(self) -> PoolingEngine:
        make = ParallelEngine if self._parallel else OfflineEngine
        try:
            return make(self._kind, self._arguments.values)
        except (Qwen3RagError, ImportError):
            raise
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"vLLM refuses its arguments: {error}") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise VllmStartError(f"vLLM could not start: {error}{self._advice()}") from error

    def _advice(self) -> str:
        if not (self._parallel or runs_apart()):
            return ""
        return (
            '. Its own process said why, above. A script needs `if __name__ == "__main__":` around what it '
            "runs, because vLLM's process imports it again"
        )


def _is_dead(error: BaseException) -> bool:
    # Ours or vLLM's. vLLM's is in a private module, so only its name is compared.
    return type(error).__name__ == "EngineDeadError"
