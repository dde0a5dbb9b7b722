"""Wrong input and damaged models give their documented result or one clear error."""

from __future__ import annotations

import enum
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from checkpoints import Qwen3Model, genuine_tokenizer
from qwen3_rag import (
    CheckpointError,
    ConfigurationError,
    Embedder,
    EngineClosedError,
    MissingExtraError,
    NonFiniteOutputError,
    OutOfMemoryError,
    PromptTooLongError,
    Reranker,
    TruncationWarning,
    WrongModelKindError,
    demo,
)
from qwen3_rag.backends.device.memory import TokenBudget
from safetensors.torch import load_file, save_file

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def damaged(checkpoint: Path, folder: Path, damage: Any) -> Path:
    """Copy a checkpoint and change its weights."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_no_texts_give_no_rows(embedder: Embedder, reranker: Reranker) -> None:
    assert embedder.embed_documents([]).shape == (0, 64)
    assert embedder.embed_queries([], dimensions=32).shape == (0, 32)
    assert embedder.embed_documents([], precision="int8").dtype == np.int8
    assert reranker.score("why?", []).shape == (0,)
    assert reranker.rerank("why?", []) == []


def test_the_empty_string_has_a_vector_and_a_score(embedder: Embedder, reranker: Reranker) -> None:
    assert np.linalg.norm(embedder.embed_documents([""])) == pytest.approx(1)
    assert 0 <= reranker.score("", [""])[0] <= 1


@pytest.mark.parametrize("wrong", [None, 3, 2.5, b"bytes", ["nested"]])
def test_what_is_not_a_string_is_named_by_its_index(embedder: Embedder, reranker: Reranker, wrong: Any) -> None:
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"text 2 must be a str, got {kind}"):
        embedder.embed_documents(["a", "b", wrong])
    with pytest.raises(TypeError, match=f"document 1 must be a str, got {kind}"):
        reranker.score("q", ["a", wrong])
    with pytest.raises(TypeError, match=f"query must be a str, got {kind}"):
        reranker.score(wrong, ["a"])
    with pytest.raises(TypeError, match=f"document 1 must be a str, got {kind}"):
        reranker.score_pairs([("q", "a"), ("q", wrong)])


def test_one_string_in_place_of_a_list_is_refused(embedder: Embedder, reranker: Reranker) -> None:
    with pytest.raises(TypeError, match="wrap it in a list"):
        embedder.embed_documents("a single text")
    with pytest.raises(TypeError, match="wrap it in a list"):
        reranker.score("q", "a single text")
    with pytest.raises(TypeError, match=r"pair 0 must be \(query, document\)"):
        reranker.score_pairs(["ab"])  # type: ignore[list-item]


@pytest.mark.parametrize("dimensions", [0, -1, 31, 65])
def test_dimensions_out_of_range_are_refused(embedder: Embedder, dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match=f"dimensions must be 32 (to 64|or more).*got {dimensions}"):
        embedder.embed_documents(["a"], dimensions=dimensions)


def test_options_that_do_not_exist_are_refused_with_those_that_do(embedding_checkpoint: Path) -> None:
    model = str(embedding_checkpoint)
    with pytest.raises(ConfigurationError, match=r"unknown backend 'tpu'; there are: .*transformers"):
        Embedder(model, backend="tpu").load()
    with pytest.raises(ConfigurationError, match="device must be"):
        Embedder(model, device="toaster").load()
    with pytest.raises(ConfigurationError, match=r"not available here; this machine has: .*cpu"):
        Embedder(model, device="cuda:99").load()
    with pytest.raises(ConfigurationError, match="dtype must be one of"):
        Embedder(model, dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="hub must be one of"):
        Embedder(model, hub="github")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="precision must be one of"):
        Embedder(model, **OPTIONS).embed_documents(["a"], precision="int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="instruction must not be blank"):
        Embedder(model, instruction=" ")
    with pytest.raises(ConfigurationError, match="documents take no instruction"):
        Embedder(model).embed(["a"], role="document", instruction="Find it")
    with pytest.raises(ConfigurationError, match="max_tokens must be 1 to 32768"):
        Embedder(model, max_tokens=40_000).load()
    with pytest.raises(ConfigurationError, match="token_budget must be 1 or more"):
        Embedder(model, token_budget=0)


def test_an_unknown_or_absent_model_is_a_checkpoint_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"(?s)cannot get model 'nobody/nothing'.*[^. \n]\. Give"):
        Embedder("nobody/nothing").load()
    with pytest.raises(CheckpointError, match="no such folder"):
        Embedder(str(tmp_path / "absent")).load()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Embedder(str(tmp_path)).load()


def test_a_missing_extra_is_answered_with_the_pip_line(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "modelscope", None)
    with pytest.raises(MissingExtraError, match=r'pip install "qwen3-rag\[modelscope\]"'):
        Embedder("Qwen/Qwen3-Embedding-0.6B", hub="modelscope").load()


def test_corrupt_and_incomplete_weights_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    corrupt = shutil.copytree(embedding_checkpoint, tmp_path / "corrupt")
    weights = corrupt / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load weights"):
        Embedder(str(corrupt), **OPTIONS).load()
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot load weights"):
        Embedder(str(corrupt), **OPTIONS).load()
    lacking = damaged(
        embedding_checkpoint, tmp_path / "lacking", lambda w: w.pop("layers.1.mlp.up_proj.weight")
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj"):
        Embedder(str(lacking), **OPTIONS).load()


def test_pickled_weights_are_not_loaded_unless_asked(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        Embedder(str(folder), **OPTIONS).load()
    vectors = Embedder(str(folder), **OPTIONS, model_kwargs={"use_safetensors": False}).embed_documents(["a"])
    assert vectors.shape == (1, 64)


def test_what_transformers_does_not_take_is_blamed_on_model_kwargs_and_not_on_the_checkpoint(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    options = {**OPTIONS, "model_kwargs": {"torch_compile": True}}
    for made in (
        Embedder(str(embedding_checkpoint), **options),
        Reranker(str(reranking_checkpoint), **options),
    ):
        with pytest.raises(ConfigurationError, match="model_kwargs holds 'torch_compile', which Transformers"):
            made.load()


def test_a_choice_of_attention_is_refused_rather_than_ignored(embedding_checkpoint: Path) -> None:
    options = {**OPTIONS, "model_kwargs": {"attn_implementation": "flash_attention_2"}}
    with pytest.raises(ConfigurationError, match="attn_implementation='flash_attention_2', but attention is"):
        Embedder(str(embedding_checkpoint), **options).load()


def test_damaged_tokenizers_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read a tokenizer"):
        Embedder(str(folder), **OPTIONS).load()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="cannot read a tokenizer"):
        Embedder(str(folder), **OPTIONS).load()


def test_a_folder_without_a_tokenizer_is_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    """Transformers would invent one without words, and each text would have the same vector."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(embedding_checkpoint / name, folder)
    with pytest.raises(CheckpointError, match=r"no tokenizer.json, nor vocab.json with merges.txt"):
        Embedder(str(folder), **OPTIONS).embed_documents(["a"])


@pytest.mark.parametrize("lost", ["<think>", "</think>", "<|im_start|>", "<|im_end|>"])
def test_a_reranker_whose_tokenizer_lost_a_control_token_is_refused(lost: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(Path(demo.__file__).parent / "models" / "demo-reranker", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] != lost]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=f"{re.escape(repr(lost))} as [0-9]+ tokens"):
        Reranker(str(folder), **OPTIONS).load()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", ["qwen3"], "must hold a JSON object, got list"),
        ("config.json", {"model_type": "qwen3"}, "must have hidden_size, a whole number, got None"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling"}], "modules with type and path"),
        ("adapter_config.json", {}, "holds an adapter without its model"),
    ],
)
def test_descriptions_that_say_something_else_are_refused(
    name: str, content: Any, message: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copy(embedding_checkpoint / "tokenizer.json", tmp_path)
    if name != "adapter_config.json":
        shutil.copy(embedding_checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(tmp_path), **OPTIONS).load()


def test_nan_weights_name_the_text_and_give_no_vector(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = genuine_tokenizer(appends_end_of_text=True)
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids[0] for text in ("gravity", " gravity")]

    def damage(weights: dict[str, torch.Tensor]) -> None:
        next(w for name, w in weights.items() if "embed_tokens" in name)[tokens] = float("nan")

    model = str(damaged(embedding_checkpoint, tmp_path / "embedding", damage))
    with pytest.raises(NonFiniteOutputError, match="NaN or infinity for text 1"):
        Embedder(model, **OPTIONS).embed_documents(["fine", "gravity", "fine too"])
    model = str(damaged(reranking_checkpoint, tmp_path / "reranking", damage))
    with pytest.raises(NonFiniteOutputError, match="text 601"):
        Reranker(model, **OPTIONS).score("why?", [*(["fine"] * 601), "gravity"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("common", ["", "one and the same prefix of many words in all of them "])
def test_nan_of_one_text_is_in_no_other_text_of_the_batch(
    common: str, dtype: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    token = genuine_tokenizer(appends_end_of_text=True).encode("gravity", add_special_tokens=False).ids[0]

    def damage(weights: dict[str, torch.Tensor]) -> None:
        next(w for name, w in weights.items() if "embed_tokens" in name)[token] = float("nan")

    model = str(damaged(embedding_checkpoint, tmp_path / "embedding", damage))
    texts = [f"{common}{number} times" for number in range(6)]
    texts.insert(3, f"{common}gravity, gravity and so on" if not common else f"{common}1gravity and so on")
    with Embedder(model, **{**OPTIONS, "dtype": dtype}) as embedder:
        backend = embedder.load().backend
        assert backend is not None
        run, finite = backend.run, dict[int, bool]()

        def noted(prompts: Any) -> Any:
            output = run(prompts)
            for prompt, values in zip(prompts, output.values, strict=True):
                finite[prompt.index] = bool(np.isfinite(values).all())
            return output

        with (
            patch.object(backend, "run", noted),
            pytest.raises(NonFiniteOutputError, match="NaN or infinity for text 3"),
        ):
            embedder.embed_documents(texts)
    assert finite == {number: number != 3 for number in range(7)}


class Task(str, enum.Enum):
    """Formats itself as its name in some releases of Python, and its hash is never its value's."""

    WHOLE = "Find passages about the capital of China"
    PRESET = "code"


class Odd(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def __format__(self, _: str) -> str:
        return "something else"

    def __add__(self, _: str) -> str:
        return "something else"

    __radd__ = __add__

    def __getitem__(self, _: Any) -> str:
        return "something else"


@pytest.mark.parametrize("text", [Task.WHOLE, Task.PRESET, Odd("The capital of China"), np.str_("The capital")])
def test_a_class_of_strings_changes_no_prompt(text: str, embedder: Embedder, reranker: Reranker) -> None:
    same = str.__str__(text)
    for one, other in ((text, same), (same, text)):
        np.testing.assert_array_equal(
            embedder.embed_queries([one], instruction=one), embedder.embed_queries([other], instruction=other)
        )
        np.testing.assert_array_equal(embedder.embed_documents([one]), embedder.embed_documents([other]))
        np.testing.assert_array_equal(
            reranker.score(one, [one], instruction=one), reranker.score(other, [other], instruction=other)
        )
        np.testing.assert_array_equal(
            reranker.score_pairs([(one, one)]), reranker.score_pairs([(other, other)])
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "uses sliding-window"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e6}},
            "scales positions by 'dynamic'",
        ),
    ],
)
def test_what_is_refused_in_a_checkpoint_is_refused_in_model_kwargs(
    changed: dict[str, Any], message: str, embedding_checkpoint: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(embedding_checkpoint), **OPTIONS, model_kwargs=changed).load()


def test_kinds_are_told_apart_where_they_can_be(
    embedding_checkpoint: Path, reranking_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(WrongModelKindError, match="give it to Reranker"):
        Embedder("Qwen/Qwen3-Reranker-4B").load()
    with pytest.raises(WrongModelKindError, match="give it to Embedder"):
        Reranker(str(embedding_checkpoint.parent / "Qwen3-Embedding-0.6B-tuned")).load()
    saved = shutil.copytree(reranking_checkpoint, tmp_path / "mine")
    (saved / "config_sentence_transformers.json").write_text('{"model_type": "SentenceTransformer"}')
    with pytest.raises(WrongModelKindError, match="is a Qwen3 embedding model: give it to Embedder"):
        Reranker(str(saved)).load()


def test_other_architectures_are_refused(embedding_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(embedding_checkpoint, tmp_path / "other")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen3"', '"model_type": "qwen3_evil"'))
    with pytest.raises(CheckpointError, match="'qwen3_evil' model; only Qwen3"):
        Embedder(str(folder), **OPTIONS).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 128}, "sliding-window attention"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ],
)
def test_what_no_published_qwen3_has_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from transformers import Qwen3Config

    genuine_tokenizer(appends_end_of_text=True).save(str(tmp_path / "tokenizer.json"))
    config = Qwen3Config(
        vocab_size=151669, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    for name, value in change.items():
        setattr(config, name, value)
    Qwen3Model(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Embedder(str(tmp_path), **OPTIONS).load()


def test_weights_that_are_kept_outside_the_devices_are_refused() -> None:
    from qwen3_rag.backends.transformers.loading import _place

    elsewhere = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(ConfigurationError, match="device_map='auto' leaves some weights"):
        _place(elsewhere, torch.device("cpu"), {"device_map": "auto"})


def test_a_query_too_long_is_an_error_that_names_it(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), max_tokens=60, **OPTIONS)
    with pytest.raises(PromptTooLongError, match=r"text 600 .*max_tokens=60"):
        embedder.embed_queries([*(["short"] * 600), "word " * 100])


CUTTING = """
import asyncio
from qwen3_rag import Embedder, Reranker
embedder, texts = Embedder("demo", max_tokens=10, device="cpu"), ["word " * 50, "a", "word " * 20]
for _ in range(2):
    assert embedder.embed(texts, role="document").usage.truncated_texts == 2
embedder.embed_documents(texts)
async def call():
    await embedder.aembed_documents(texts)
asyncio.run(call())
Reranker("demo", max_tokens=120, device="cpu").rerank("q", texts)
"""


def test_each_call_that_cut_documents_says_so_at_its_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CUTTING)
    command = [sys.executable, str(script)]
    said = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stderr
    found = re.findall(
        r"(\S+):(\d+): TruncationWarning: (\d of 3) documents were cut to fit max_tokens=(\d+)", said
    )
    assert [(int(line), *rest) for _, line, *rest in found] == [
        (6, "2 of 3", "10"),
        (6, "2 of 3", "10"),
        (7, "2 of 3", "10"),
        (9, "2 of 3", "10"),
        (11, "1 of 3", "120"),
    ]
    assert {file for file, *_ in found} == {str(script)}


def test_the_warning_can_be_made_an_error(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), max_tokens=10, **OPTIONS)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=TruncationWarning)
        with pytest.raises(TruncationWarning, match="1 of 1 documents were cut to fit max_tokens=10; raise it"):
            embedder.embed_documents(["word " * 50])
    assert (embedder.usage.texts, embedder.usage.truncated_texts) == (1, 1)


FEW = """
import asyncio
from qwen3_rag import Embedder, quantize
embedder = Embedder("demo", device="cpu", timeout=60)
vectors = embedder.embed_documents(["a", "b"])
quantize(vectors, "int8")
embedder.embed_documents(["a", "b"], precision="int8")
async def call():
    await embedder.aembed_queries(["a"], precision="uint8")
asyncio.run(call())
embedder.embed_documents([], precision="int8")
embedder.embed_documents(["a"], precision="int8", ranges=[vectors.min(0), vectors.max(0)])
"""


@pytest.mark.parametrize("inline", [200_000, 0], ids=["few numbers", "many numbers"])
def test_few_vectors_for_ranges_are_warned_of_at_the_line_that_called(tmp_path: Path, inline: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import qwen3_rag.component as c; c._INLINE_NUMBERS = {inline}" + FEW)
    command = [sys.executable, "-W", "always", str(script)]
    said = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stderr
    found = re.findall(r"(\S+):(\d+): UserWarning: int8/uint8 ranges measured on only (\d)", said)
    assert [(file, int(line), count) for file, line, count in found] == [
        (str(script), 6, "2"),
        (str(script), 7, "2"),
        (str(script), 9, "1"),
    ]


def test_negative_top_k_is_refused_and_zero_is_none(reranker: Reranker) -> None:
    with pytest.raises(ConfigurationError, match="top_k must be 0 or more"):
        reranker.rerank("q", ["a"], top_k=-1)
    assert reranker.rerank("q", ["a"], top_k=0) == []
    assert len(reranker.rerank("q", ["a", "b"], top_k=9)) == 2


def test_a_closed_component_says_so(embedding_checkpoint: Path) -> None:
    with Embedder(str(embedding_checkpoint), **OPTIONS) as embedder:
        embedder.embed_documents(["a"])
    with pytest.raises(EngineClosedError, match="Embedder is closed"):
        embedder.embed_documents(["a"])
    embedder.close()


def running_out_of_memory(component: Any, most: int) -> list[int]:
    """Make a loaded backend fail on batches of more than `most` tokens; return the sizes it computes."""
    backend, computed = component.load().backend, []
    forward = backend._forward

    def limited(batch: Any, prefix: Any, past: Any) -> Any:
        if len(batch.token_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        computed.append(len(batch.token_ids) - (0 if past is None else len(past)))
        return forward(batch, prefix, past)

    backend._forward = limited
    return computed


def test_out_of_memory_halves_batches_and_loses_nothing(embedding_checkpoint: Path) -> None:
    texts = [f"text {i} " * (1 + i % 9) for i in range(60)]
    expected = Embedder(str(embedding_checkpoint), **OPTIONS).embed_documents(texts)
    embedder = Embedder(str(embedding_checkpoint), token_budget=5000, **OPTIONS)
    computed = running_out_of_memory(embedder, 100)
    np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
    assert max(computed) <= 100
    assert embedder.usage.computed_tokens == sum(computed)


def test_a_text_that_fits_nowhere_is_a_clear_error_and_others_go_on(embedding_checkpoint: Path) -> None:
    embedder = Embedder(str(embedding_checkpoint), token_budget=5000, **OPTIONS)
    running_out_of_memory(embedder, 50)
    with pytest.raises(OutOfMemoryError, match="alone does not fit"):
        embedder.embed_documents(["word " * 100] * 3)
    with pytest.raises(OutOfMemoryError, match=r"text 1 \(102 tokens\) alone does not fit"):
        embedder.embed_documents(["a", "word " * 100])
    assert embedder.embed_documents(["a"]).shape == (1, 64)


def test_a_real_memory_limit_halves_batches_and_changes_nothing(embedding_checkpoint: Path) -> None:
    """The process may take 16 MB more than it has; one batch of everything needs several times that.

    oneDNN's kernels are made before: where one does not fit, it makes no more in that thread.
    """
    program = """
import resource, sys
import numpy as np
from qwen3_rag import Embedder
from qwen3_rag.backends.transformers.packed_linear import padded_row_count
texts = [f"text {i} " + "word " * 400 for i in range(512)]
options = {"dtype": "float32", "device": "cpu"}
expected = Embedder(sys.argv[1], **options).embed_documents(texts)
embedder = Embedder(sys.argv[1], token_budget=10**9, **options).load()
for rows in sorted({padded_row_count(rows) for rows in range(1, 2049)}):
    embedder.embed_documents([" word" * (rows - 1)])
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (16 << 20), -1))
np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-5)
print(embedder.backend.token_budget)
"""
    command = [sys.executable, "-c", program, str(embedding_checkpoint)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 1 <= int(run.stdout) < 10**9


def test_the_token_budget_follows_free_memory_and_recovers() -> None:
    free, seconds = 1000, 0.0
    budget = TokenBudget(lambda: free, lambda: seconds)
    assert budget.now() == 1000
    free = 700
    assert budget.now() == 1000
    seconds = 1.0
    assert budget.now() == 700
    budget.ran_out(600)
    assert budget.now() == 300
    for _ in range(64):
        budget.succeeded()
    assert budget.now() == 600
    for _ in range(64):
        budget.succeeded()
    free, seconds = 5000, 2.0
    assert budget.now() == 5000
    budget.ran_out(1)
    assert budget.now() == 1
