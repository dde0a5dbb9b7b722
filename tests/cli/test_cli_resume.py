"""`embed` goes on where it was killed: no row lost, none twice, and only with the same work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from command import Invoke
from embedding_job import SMALL, StoppedError, stop_after
from qwen3_rag import Embedder
from qwen3_rag.cli.embed import _settings

ROWS = 400


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"id": number, "text": f"row {number} " + "word " * (number % 17)} for number in range(ROWS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def kill_after(parts: int, corpus: Path, output: Path, model: Path) -> None:
    """Run `embed` in another process and SIGKILL it once it has saved that many parts."""
    command = [sys.executable, "-m", "qwen3_rag.cli", "embed", corpus, output, "--model", model, *SMALL]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    folder = output.with_name(output.name + ".parts")
    while process.poll() is None and len(list(folder.glob("*.npz"))) < parts:
        sleep(0.001)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_a_job_killed_twice_ends_with_the_same_bytes_as_one_that_was_not(
    invoke: Invoke, corpus: Path, tmp_path: Path, embedding_checkpoint: Path, ending: str
) -> None:
    whole, killed = tmp_path / f"whole{ending}", tmp_path / f"killed{ending}"
    assert invoke("embed", corpus, whole, "--model", embedding_checkpoint, *SMALL).code == 0
    kill_after(1, corpus, killed, embedding_checkpoint)
    first = len(list(tmp_path.glob("killed*.parts/*.npz")))
    if ending == ".npy":  # one format is enough for the second kill
        kill_after(first + 20, corpus, killed, embedding_checkpoint)
    done = len(list(tmp_path.glob("killed*.parts/*.npz")))
    assert 1 <= first <= done < ROWS // 2
    assert not killed.exists()
    run = invoke("embed", corpus, killed, "--model", embedding_checkpoint, *SMALL, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 2 * done
    assert killed.read_bytes() == whole.read_bytes()
    assert not killed.with_name(killed.name + ".parts").exists()


@pytest.fixture
def interrupted(
    invoke: Invoke, corpus: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An output whose job stopped after three parts."""
    output = tmp_path / "out.npy"
    with monkeypatch.context() as patched:
        stop_after(3, patched)
        with pytest.raises(StoppedError):
            invoke("embed", corpus, output, "--model", embedding_checkpoint, *SMALL)
    assert len(list(tmp_path.glob("out.npy.parts/*.npz"))) == 3
    return output


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--dimensions", "48"), "dimensions was 32 and is now 48"),
        (("--chunk-size", "3"), "chunk size was 2 and is now 3"),
        (("--precision", "float16"), "precision was 'float32' and is now 'float16'"),
        (("--role", "query"), "role was 'document' and is now 'query'"),
        (("--max-tokens", "9"), "max tokens was 8192 and is now 9"),
        (("--dtype", "bfloat16"), "computed in was 'float32' and is now 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_and_named(
    invoke: Invoke,
    corpus: Path,
    interrupted: Path,
    embedding_checkpoint: Path,
    changed: tuple[str, str],
    named: str,
) -> None:
    run = invoke("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL, *changed)
    assert run.code == 2
    assert named in run.err
    assert "--restart" in run.err
    assert not interrupted.exists()


def test_a_changed_input_is_refused_even_if_its_size_is_the_same(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    corpus.write_bytes(corpus.read_bytes().replace(b"row 7 ", b"row X "))
    run = invoke("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL)
    assert run.code == 2
    assert "input's SHA-256 was" in run.err


def test_a_changed_checkpoint_is_refused(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    config = embedding_checkpoint / "config.json"
    before = config.read_text(encoding="utf-8")
    try:
        config.write_text(before + "\n", encoding="utf-8")
        run = invoke("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL)
    finally:
        config.write_text(before, encoding="utf-8")
    assert run.code == 2
    assert "weights was" in run.err


def test_restart_throws_the_unfinished_work_away(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    run = invoke(
        *("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL),
        *("--dimensions", 48, "--restart", "--json"),
    )
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 0
    assert np.load(interrupted).shape == (ROWS, 48)


def test_another_device_or_token_budget_may_go_on(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    run = invoke(
        *("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL),
        *("--device", "cpu", "--token-budget", 600, "--json"),
    )
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 6


def test_a_job_stopped_while_assembling_computes_nothing_again(
    invoke: Invoke, corpus: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3_rag.cli import assemble

    output = tmp_path / "v.npy"
    command = ("embed", corpus, output, "--model", embedding_checkpoint, *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(assemble, "publish", lambda *_: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            invoke(*command)
    assert not output.exists()
    stop_after(0, monkeypatch)
    run = invoke(*command, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == ROWS
    assert np.load(output).shape == (ROWS, 32)


def test_two_processes_do_not_work_on_one_output(
    invoke: Invoke, lines: Path, tmp_path: Path, embedding_checkpoint: Path
) -> None:
    from qwen3_rag.cli.parts import Parts

    with Parts(tmp_path / "v.npy", restart=False):
        run = invoke("embed", lines, tmp_path / "v.npy", "--model", embedding_checkpoint)
    assert run.code == 2
    assert "another process" in run.err


def test_an_input_changed_while_it_is_read_gets_no_output(
    invoke: Invoke, corpus: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Embedder.embed

    def meddling(self: Embedder, *arguments: object, **options: object) -> object:
        result = embed(self, *arguments, **options)  # type: ignore[arg-type]
        corpus.write_bytes(corpus.read_bytes().replace(b"row 7 ", b"row X "))
        return result

    monkeypatch.setattr(Embedder, "embed", meddling)
    run = invoke("embed", corpus, tmp_path / "v.npy", "--model", embedding_checkpoint, "--chunk-size", ROWS)
    assert run.code == 2
    assert "was changed while it was read" in run.err
    assert not (tmp_path / "v.npy").exists()


def test_a_damaged_part_is_named(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    part = next(interrupted.with_name("out.npy.parts").glob("*.npz"))
    part.write_bytes(b"nothing of the kind")
    run = invoke("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL)
    assert run.code == 2
    assert part.name in run.err
    part.unlink()
    assert invoke("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL).code == 0
    assert np.load(interrupted).shape == (ROWS, 32)


def test_a_damaged_manifest_is_named_and_thrown_away_on_request(
    invoke: Invoke, corpus: Path, interrupted: Path, embedding_checkpoint: Path
) -> None:
    manifest = interrupted.with_name("out.npy.parts") / "manifest.json"
    manifest.write_text(manifest.read_text()[:-2])
    command = ("embed", corpus, interrupted, "--model", embedding_checkpoint, *SMALL)
    run = invoke(*command)
    assert run.code == 2
    assert f"{manifest.name} is damaged" in run.err
    assert "--restart" in run.err
    assert invoke(*command, "--restart").code == 0


def stopped_after_three(invoke: Invoke, patched: pytest.MonkeyPatch, *command: object) -> None:
    with patched.context() as inner:
        stop_after(3, inner)
        with pytest.raises(StoppedError):
            invoke(*command)


def test_other_model_kwargs_are_refused_and_secrets_are_written_nowhere(
    invoke: Invoke, corpus: Path, tmp_path: Path, embedding_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("embed", corpus, tmp_path / "v.npy", "--model", embedding_checkpoint, *SMALL, "--model-kwargs")
    stopped_after_three(invoke, monkeypatch, *command, '{"local_files_only": true, "token": "hf_first"}')
    written = b"".join(path.read_bytes() for path in (tmp_path / "v.npy.parts").iterdir())
    assert b"local_files_only" in written
    assert b"hf_first" not in written
    run = invoke(*command, '{"local_files_only": false, "token": "hf_first"}')
    assert run.code == 2
    assert "model kwargs was {'local_files_only': True} and is now {'local_files_only': False}" in run.err
    run = invoke(*command, '{"token": "hf_second", "local_files_only": true}', "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == 6


def test_a_job_at_a_server_goes_on_at_another_address_but_not_with_another_model_or_kind_of_server() -> None:
    def settings(**model_kwargs: object) -> dict[str, Any]:
        server = {"server": "vllm", "base_url": "http://127.0.0.1:8000", **model_kwargs}
        return _settings(Embedder(backend="remote", model_kwargs=server))

    limits = {"max_connections": 2, "max_inputs_per_request": 8, "max_tokens_per_request": 4096}
    assert settings(timeout=1, deadline=60, max_retries=0, api_key_env="A_KEY", **limits) == settings()
    assert settings() == settings(base_url=["http://gpu-1:8000", "http://gpu-2:8000"])
    assert settings() != settings(served_model="another")
    assert settings() != settings(server="tei")
    assert settings() != settings(path="/another")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_a_full_disk_is_an_error_that_names_the_file_and_costs_no_row(
    invoke: Invoke,
    corpus: Path,
    tmp_path: Path,
    embedding_checkpoint: Path,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / f"v{ending}"
    command = ("embed", corpus, output, "--model", embedding_checkpoint, *SMALL, "--chunk-size", 200)
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(StoppedError):
            invoke(*command)
    full = tmp_path / f"v{ending}.parts" / "assembled.tmp"
    full.symlink_to("/dev/full")
    run = invoke(*command)
    assert run.code == 2
    assert run.err.splitlines()[-1].startswith("error: [Errno 28]")
    assert str(full) in run.err
    full.unlink()
    run = invoke(*command, "--json")
    assert run.code == 0, run.err
    assert json.loads(run.out)["rows_of_earlier_runs"] == ROWS
