"""`qwen3-rag verify`: exit codes, words and JSON."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from faulty_model import Served
from faulty_server import running
from qwen3_rag.verification.faults import FAULTS
from verify_run import DEAD, run

LIVE = "the running server's"


def test_a_right_server_exits_with_0(url: str, embedding_checkpoint: Path) -> None:
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 0, result.output
    assert "POST /v1/embeddings, token ids: right" in result.stdout
    assert "all agree" in result.stdout
    assert "(vllm) asked for 'the-model', compared with" in result.stdout
    assert re.search(r"checked up to 1,[34]\d\d tokens; longer texts were not sent", result.stdout)


def test_a_faulty_server_exits_with_1_and_says_what_to_do(
    url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    embedder.fault = "missing-final-token"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 1, result.output
    assert "the final token <|endoftext|> is missing: their largest difference from the local" in result.stdout
    assert "fix: Serve the checkpoint's own tokenizer files" in result.stdout


def test_what_is_said_of_a_fault_breaks_no_line() -> None:
    assert [name for name, fault in FAULTS.items() if "\n" in fault.what + fault.fix] == []


def test_json_holds_all_of_it(url: str, embedder: Served, embedding_checkpoint: Path) -> None:
    embedder.fault = "not-normalised"
    result = run("--url", url, "--model", embedding_checkpoint, "--send", "ids", "--json")
    report = json.loads(result.stdout)
    assert (report["passed"], report["kind"]) == (False, "embedding")
    assert report["served_model"] == "the-model"
    assert report["longest"] == report["checks"][0]["longest"] > 1300
    assert [check["path"] for check in report["checks"]] == ["POST /v1/embeddings, token ids"]
    assert report["checks"][0]["difference"] < 1e-5
    assert report["checks"][0]["findings"][0]["fault"] == "not-normalised"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either --url"),
        (["--url", DEAD, "--backend", "transformers"], "give either --url"),
        (["--url", DEAD, "--server", "openai"], "cannot be reached"),
        (["--url", "user:secret@host"], "url must look like"),
        (["--url", "http://user:secret@127.0.0.1:9"], "holds a user name, a password or a query"),
        (["--url", "http://127.0.0.1:9?key=secret"], "holds a user name, a password or a query"),
        (["--url", "http://user:secret@[127"], "url must look like"),
        (["--url", "http://é_é.example"], "url must look like"),
        (["--url", DEAD, "--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--url", DEAD, "--api-key-env", "sk-secret-5f1d"], "is it the key itself?"),
        (["--url", DEAD, "--api-key-env", "jina_secret5f1d"], "is it the key itself?"),
        (["--backend", "transformers", "--max-tokens", "40000"], "must be 256 to 32768"),
        (["--backend", "transformers", "--max-tokens", "100"], "must be 256 to 32768"),
        (["--backend", "nothing"], "unknown backend 'nothing'"),
        (["--backend", "transformers", "--model-kwargs", "["], "must be a JSON object"),
        (["--backend", "transformers", "--dimensions", "32"], "--dimensions goes with --url"),
        (["--backend", "transformers", "--send", "ids"], "--send goes with --url"),
        (["--backend", "transformers", "--timeout", "120"], "--timeout goes with --url"),
        (
            ["--backend", "transformers", "--path", "/p", "--instruction-field", "task"],
            "--path, --instruction-field goes with --url",
        ),
        (
            ["--backend", "transformers", "--served-model", "m", "--template", "server", "--server", "tei"],
            "--server, --template, --served-model goes with --url; leave it out with --backend",
        ),
        (["--backend", "transformers", "--api-key-env", "HOME"], "--api-key-env goes with --url"),
        (["--url", DEAD, "--model-kwargs", "{}"], "--model-kwargs goes with --backend"),
    ],
)
def test_what_cannot_be_asked_exits_with_2(arguments: list[str], said: str, embedding_checkpoint: Path) -> None:
    result = run(*arguments, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", DEAD], "9) (ConnectError)"),
        (["--url", DEAD, "--server", "openai", "--served-model", "m"], f"{DEAD} cannot be reached: "),
        (["--url", LIVE, "--server", "cohere"], "not for embedding"),
        (["--url", LIVE, "--server", "tei", "--send", "ids"], "takes no ids"),
        (["--url", LIVE, "--kind", "reranking", "--dimensions", "32"], "for embedding models only"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_reference_is_loaded(
    arguments: list[str], said: str, url: str, embedding_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(
        embedding_checkpoint, tmp_path / "no weights", ignore=lambda *_: ["model.safetensors"]
    )
    result = run(*(url if one == LIVE else one for one in arguments), "--model", folder)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


@pytest.mark.parametrize(
    ("path", "spared"), [("/version", ["--server", "vllm"]), ("/v1/models", ["--served-model", "the-model"])]
)
@pytest.mark.parametrize(
    ("status", "said"), [(0, "does not answer: Server disconnected"), (503, "could not be asked: HTTP 503")]
)
def test_that_a_question_got_no_answer_is_not_taken_for_one(
    status: int, said: str, path: str, spared: list[str], url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    """The server would be another kind of server, and its token ids never checked."""
    embedder.broken = {path: status}
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 2, result.output
    assert f"{url}{path} {said}" in result.stderr
    assert f"{spared[0]} " in result.stderr
    told = run("--url", url, "--model", embedding_checkpoint, *spared)
    assert told.exit_code == 0, told.output


def test_instruction_tolerance_and_timeout_are_the_asked_ones(
    url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    asked = ("--url", url, "--model", embedding_checkpoint, "--send", "text")
    embedder.fault = "missing-instruction"  # it knows the default one alone
    assert run(*asked, "--instruction", "question-answering").exit_code == 0
    embedder.fault = "another model"
    assert run(*asked, "--tolerance", "2").exit_code == 0
    embedder.fault = "never ends"
    assert "no whole answer within 0.3 s" in run(*asked, "--timeout", "0.3").stderr


def test_rerank_prompts_are_rendered_by_the_asked_side(reranker: Served, reranking_checkpoint: Path) -> None:
    reranker.fault = "rendered by the client"
    with running(reranker, "cohere") as url:
        result = run("--url", url, "--model", reranking_checkpoint, "--template", "client")
    assert result.exit_code == 0, result.output
    assert "POST /rerank, rendered text: right" in result.stdout


def test_a_text_path_that_is_wrong_is_told_and_does_not_fail_the_server(
    url: str, embedder: Served, embedding_checkpoint: Path
) -> None:
    embedder.fault = "chat-template"
    result = run("--url", url, "--model", embedding_checkpoint)
    assert result.exit_code == 0, result.output
    assert "for other clients, POST /v1/embeddings, text: WRONG" in result.stdout
    assert "clients that send text get other numbers" in result.stdout
    assert run("--url", url, "--model", embedding_checkpoint, "--send", "both").exit_code == 1
