"""How a server is asked: its kind, names and ways, and what counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from faulty_model import Served
from qwen3_rag.errors import ConfigurationError, WrongModelKindError
from qwen3_rag.kinds import find_kind
from qwen3_rag.models import ModelKind
from qwen3_rag.settings import EngineSettings
from qwen3_rag.verification.endpoint import Endpoint, chosen_name
from qwen3_rag.verification.routes import routes
from qwen3_rag.verification.subject import Subject
from subjects import named, subject_of, verified


def test_text_is_a_note_by_default_where_ids_are_taken(reranking: Subject, reranker: Served) -> None:
    """A vLLM reranker that was started without a template needs none here."""
    report = verified(reranking, reranker, "vllm", "template-missing", send="auto")
    assert report.passed
    assert [check.is_note for check in report.checks] == [False, True]
    assert named(report, "/rerank") == ["template-missing"]
    assert not verified(reranking, reranker, "vllm", "template-missing", send="both").passed
    assert not verified(reranking, reranker, "vllm", "answers-swapped", send="auto").passed
    only_text = verified(reranking, reranker, "cohere", "template-missing", send="auto")
    assert not only_text.passed
    assert [check.is_note for check in only_text.checks] == [False]


def test_of_several_models_the_one_that_is_meant_is_asked(embedding: Subject, embedder: Served) -> None:
    embedder.listed = ["llama3.2:latest", "the-model"]
    report = verified(embedding, embedder, "openai")
    assert report.passed, report
    assert report.served_model == "the-model"
    embedder.listed = ["llama3.2:latest", "another"]
    with pytest.raises(ConfigurationError, match=r"'llama3.2:latest', 'another'; say with --served-model"):
        verified(embedding, embedder, "openai")


@pytest.mark.parametrize(
    ("listed", "model", "name"),
    [
        ([], "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"),
        (["any"], "demo", "any"),
        (["a", "Qwen3-Embedding-0.6B"], "Qwen/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        (["a", "Qwen/Qwen3-Embedding-0.6B"], "/models/Qwen3-Embedding-0.6B/", "Qwen/Qwen3-Embedding-0.6B"),
        (["x/demo", "demo", "y/demo"], "demo", "demo"),
    ],
)
def test_a_name_is_chosen_whole_before_by_its_last_part(listed: list[str], model: str, name: str) -> None:
    assert chosen_name(model, listed) == name


def test_a_last_part_that_several_models_have_chooses_none() -> None:
    with pytest.raises(ConfigurationError, match="--served-model"):
        chosen_name("demo", ["x/demo", "y/demo"])


def test_of_many_models_some_are_told() -> None:
    with pytest.raises(ConfigurationError, match=r"lists 10 models, 'a', .*, 'h' and 2 more; say with"):
        chosen_name("demo", list("abcdefghij"))
    with pytest.raises(ConfigurationError, match=r"lists 8 models, 'a', .*, 'h'; say with"):
        chosen_name("demo", list("abcdefgh"))


@pytest.mark.parametrize("served_model", [None, "the-model"])
def test_of_tei_no_model_is_asked_for(served_model: str | None, embedding: Subject, embedder: Served) -> None:
    """It has one, and its requests name none."""
    embedder.listed = ["several", "others"]
    report = verified(embedding, embedder, "tei", served_model=served_model)
    assert report.passed, report
    assert report.served_model is None


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://dashscope.aliyuncs.com/api/v1", "dashscope"),
        ("https://work-1.cn-beijing.maas.aliyuncs.com", "dashscope"),
        ("https://1234.cn-hangzhou.pai-eas.aliyuncs.com/api/predict/emb", "openai"),
        ("https://host/dashscope.aliyuncs.com", "openai"),
    ],
)
def test_only_dashscopes_own_hosts_are_taken_for_it(
    url: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3_rag.verification.endpoint.Connection", lambda *_, **__: Silent())
    assert Endpoint(url, key=None, timeout=1).detect("embedding") == server


@pytest.mark.parametrize("path", ["", "/api/v1", "/compatible-mode/v1", "/compatible-api/v1/"])
@pytest.mark.parametrize(
    ("kind", "model", "end"),
    [
        ("embedding", "text-embedding-v4", "api/v1/services/embeddings/text-embedding/text-embedding"),
        ("reranking", "qwen3-vl-rerank", "api/v1/services/rerank/text-rerank/text-rerank"),
        ("reranking", "qwen3-rerank", "compatible-api/v1/reranks"),
    ],
)
def test_any_base_url_of_dashscope_leads_to_the_models_own_endpoint(
    path: str, kind: ModelKind, model: str, end: str
) -> None:
    url = Endpoint(f"https://h{path}", key=None, timeout=1).url
    (way,) = routes(
        url,
        "dashscope",
        kind,
        model=model,
        template="server",
        instruction="",
        instruction_field=None,
        dimensions=None,
    )
    assert way.url == f"https://h/{end}"


class Silent:
    """A connection to a server that knows no question."""

    def get(self, _: str) -> None:
        return None


def test_a_server_that_cuts_to_the_asked_dimensions_passes_and_other_faults_are_seen(
    embedding_checkpoint: Path, embedder: Served
) -> None:
    subject = subject_of("embedding", embedding_checkpoint, dimensions=32)
    assert verified(subject, embedder, "vllm", dimensions=32).passed
    for fault in ("wrong-dimensions", "missing-final-token", "mean-pooling", "truncated"):
        report = verified(subject, embedder, "vllm", fault, dimensions=32)
        assert named(report, "ids") == [fault]
    assert "256 tokens" in report.checks[0].findings[0].what, "the limit of `truncated`"


def test_the_kind_is_found_from_names_files_and_tokenizer(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    assert find_kind(EngineSettings("embedding", str(embedding_checkpoint))) == "embedding"
    assert find_kind(EngineSettings("embedding", str(reranking_checkpoint))) == "reranking"


def test_a_name_that_its_files_contradict_is_told_as_such(reranking_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reranking_checkpoint, tmp_path / "Qwen3-Embedding-0.6B-judge")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["Qwen3ForSequenceClassification"]})
    )
    with pytest.raises(WrongModelKindError, match="the name of a Qwen3 embedding model and the files of the"):
        find_kind(EngineSettings("embedding", str(folder)))


def test_the_server_computes_without_the_package() -> None:
    """Both sides of the comparison would share a mistake otherwise."""
    assert torch.get_default_dtype() is torch.float32
    for name in ("faulty_model.py", "faulty_server.py"):
        assert "qwen3_rag" not in (Path(__file__).parent / name).read_text()
