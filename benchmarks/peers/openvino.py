"""OpenVINO on the CPU, converted from Hugging Face's model: bfloat16, and weights of 8 bits.

optimum-intel 2.2, the usual way, wants transformers below 5.6, so the conversion is our own. Texts are
padded at the right, where causal attention makes padding harmless, and the state of each last token is taken.
Without the table of rotary angles OpenVINO computes them in bfloat16 (cosine to the right vector 0.97).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import nncf
import numpy as np
import openvino
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from benchmarks.checkpoints import QUERY_PROMPT
from benchmarks.peers import UnavailableError
from benchmarks.run_setup import Setup
from benchmarks.texts import LONGEST
from benchmarks.ways import Floats, Peer, by_batch_size, clocked

_ROWS: Final = 2 * LONGEST
"""Positions that the converted model knows."""


class _Angles(nn.Module):
    """Rotary embedding from a table."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        cosine, sine = rotary(torch.zeros(1, 1, 1), torch.arange(_ROWS)[None])
        self.register_buffer("cosine", cosine)
        self.register_buffer("sine", sine)

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        length = hidden.shape[1]
        return self.cosine[:, :length], self.sine[:, :length]


class _LastState(nn.Module):
    """Token ids padded at the right, and the place of each row's last token, to its final state."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor, ends: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        states = self.decoder(
            input_ids=ids, attention_mask={"full_attention": mask}, use_cache=False
        ).last_hidden_state
        chosen: Tensor = states[torch.arange(ids.shape[0]), ends]
        return chosen


def embedding(setup: Setup, _: ExitStack) -> list[Peer]:
    """Batches in order of length."""
    if setup.device.type != "cpu":
        raise UnavailableError("OpenVINO runs on the CPU only")
    nncf.set_log_level(logging.ERROR)
    folder = setup.checkpoint("embedding")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    converted = _convert(folder)
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if setup.dtype == torch.bfloat16 else "f32"}
    plain = core.compile_model(converted, "CPU", hint)
    small = core.compile_model(nncf.compress_weights(converted), "CPU", hint)
    facts = {"openvino": openvino.__version__, "precision": hint["INFERENCE_PRECISION_HINT"]}

    def peer(name: str, model: Any, *, int8: bool) -> Peer:
        settings = by_batch_size(
            lambda size: clocked(_embed(model, tokenizer, size)), setup.swept_batches, None
        )
        one = _embed(model, tokenizer, 1)
        queries = clocked(lambda texts: one([QUERY_PROMPT + text for text in texts]))
        return Peer(name, settings, None, {"one text": queries}, int8=int8, facts=facts)

    return [peer("OpenVINO", plain, int8=False), peer("OpenVINO, int8 weights", small, int8=True)]


def _convert(folder: Any) -> Any:
    decoder = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    decoder.rotary_emb = _Angles(decoder.rotary_emb)
    example = (torch.randint(1000, 9000, (2, 17)), torch.tensor([16, 9]))
    with torch.no_grad():
        return openvino.convert_model(_LastState(decoder).eval(), example_input=example)


def _embed(model: Any, tokenizer: Any, size: int) -> Callable[[Sequence[str]], Floats]:
    def embed(texts: Sequence[str]) -> Floats:
        rows = tokenizer(list(texts))["input_ids"]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        states: list[Floats] = []
        for start in range(0, len(order), size):
            batch = [rows[i] for i in order[start : start + size]]
            ids = np.zeros((len(batch), max(map(len, batch))), np.int64)
            for place, row in enumerate(batch):
                ids[place, : len(row)] = row
            states.append(model([ids, np.array([len(row) - 1 for row in batch])])[0])
        found = np.concatenate(states)[np.argsort(order)]
        vectors: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
        return vectors

    return embed
