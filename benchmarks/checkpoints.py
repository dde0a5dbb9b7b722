"""Checkpoints at the published widths with random weights and, if asked, fewer layers.

Beside the weights stand the files that make the published repositories what they are to other programs:
`modules.json` and its kin for Sentence Transformers, and a chat template in the tokenizer's config.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from qwen3_rag import DEFAULT_INSTRUCTION
from qwen3_rag.models import PUBLISHED_MODELS, ModelKind, PublishedModel
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from benchmarks import texts
from tests.checkpoints import genuine_tokenizer

NO, YES = 2152, 9693
QUERY_PROMPT: Final = f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LOG_ODDS_SPREAD: Final = 3.0
"""Standard deviation of the log-odds between passages, wide enough to tell answers apart."""


def shape(size: str, kind: ModelKind, layers: int | None) -> PublishedModel:
    """The published model of a size and kind, with another number of layers if one is given."""
    model = next(m for m in PUBLISHED_MODELS if m.kind == kind and m.parameters == size)
    return model if layers is None else replace(model, layers=layers)


def make_checkpoint(folder: Path, model: PublishedModel, dtype: torch.dtype, device: torch.device) -> Path:
    """Save a checkpoint whose outputs differ clearly between texts.

    Weights are drawn on the device: 8 billion on a CPU would take minutes.
    """
    reranks = model.kind == "reranking"
    tokenizer = genuine_tokenizer(appends_end_of_text=not reranks)
    config = _config(model, tokenizer.get_vocab_size())
    with torch.device("meta"):
        network: Any = (Qwen3ForCausalLM if reranks else Qwen3Model)(config)
    network = network.to(dtype).to_empty(device=device).eval()
    network.tie_weights()
    decoder = network.get_decoder() if reranks else network
    decoder.rotary_emb = type(decoder.rotary_emb)(config).to(device)  # its buffers are no parameters
    _fill(network, torch.Generator(device).manual_seed(0))
    if reranks:
        _spread_answers(network, tokenizer)
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_tokenizer_config(folder, CHAT_TEMPLATE)
    if not reranks:
        _write_sentence_transformers_files(folder, model)
    return folder


def variant(folder: Path, target: Path, *, chat_template: str, keep_modules: bool) -> Path:
    """Make a checkpoint of the same weights (links to them) with other small files."""
    target.mkdir()
    for source in folder.iterdir():
        if source.is_file() and (
            keep_modules or not ("sentence" in source.name or source.name == "modules.json")
        ):
            (target / source.name).hardlink_to(source)
    (target / "tokenizer_config.json").unlink()
    _write_tokenizer_config(target, chat_template)
    return target


def _config(model: PublishedModel, vocabulary: int) -> Qwen3Config:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=model.dimensions,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_dim,
        max_position_embeddings=model.context,
        rms_norm_eps=1e-6,
        tie_word_embeddings=model.head == "tied",
        use_sliding_window=False,
        bos_token_id=151643,
        eos_token_id=151645,
        pad_token_id=151643,
    )
    config.rope_theta = 1_000_000.0
    parameters: Any = getattr(config, "rope_parameters", None)  # where transformers 5 keeps it
    if parameters:
        parameters["rope_theta"] = 1_000_000.0
    return config


@torch.no_grad()
def _fill(network: torch.nn.Module, generator: torch.Generator) -> None:
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)  # norms
        else:
            deviation = 0.5 if "embed" in name else 2.0 / parameter.shape[-1] ** 0.5
            parameter.normal_(0.0, deviation, generator=generator)


@torch.inference_mode()
def _spread_answers(network: Any, tokenizer: Any) -> None:
    """Give "yes" and "no" opposite rows whose product with the last state has mean 0 and a fair spread.

    Random rows would answer everything with a certainty that no float32 probability shows. With tied
    heads the rows are embeddings too, and the template names both words, so this is repeated.
    """
    prompts = [
        f"<|im_start|>user\n<Query>: {texts.QUERY}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
        for passage in texts.uniform(16, 60)
    ]
    ids = torch.tensor([tokenizer.encode(prompt).ids for prompt in prompts], device=network.device)
    rows = network.get_output_embeddings().weight
    direction = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(1)).to(rows.device)
    for _ in range(4):
        states = network.get_decoder()(ids, use_cache=False).last_hidden_state[:, -1].float()
        middle = states.mean(0)
        across = direction - (direction @ middle) / (middle @ middle) * middle
        across *= _LOG_ODDS_SPREAD / (states @ across).std()
        rows[YES], rows[NO] = (across / 2).to(rows.dtype), (-across / 2).to(rows.dtype)


def _write_tokenizer_config(folder: Path, chat_template: str) -> None:
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131072,
        "chat_template": chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def _write_sentence_transformers_files(folder: Path, model: PublishedModel) -> None:
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.dimensions,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_lasttoken": True,
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": {"query": QUERY_PROMPT, "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
