"""Which files of a checkpoint are fetched, and which of them make it another model when they change."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from qwen3_rag import CheckpointError, Embedder, MissingExtraError, demo
from qwen3_rag.checkpoint import open_checkpoint, resolve_local_model
from qwen3_rag.settings import EngineSettings

MODELS = Path(demo.__file__).parent / "models"

DESCRIPTION = {
    "config.json",
    "tokenizer.json",
    "merges.txt",
    "chat_template.jinja",
    "1_Pooling/config.json",
}
WEIGHTS = {"model.safetensors", "2_Dense/model.safetensors"}
PICKLED = {"pytorch_model.bin", "2_Dense/pytorch_model.bin"}
OTHERS = {"README.md", "onnx/model.onnx", "model.gguf"}


class Hub:
    """A hub that gives the files that are asked for and no others, as huggingface-hub chooses them."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache

    def __call__(self, _model: str, *, allow_patterns: list[str], **_: Any) -> str:
        self.given = set()
        for path in filter(Path.is_file, self.repository.rglob("*")):
            name = path.relative_to(self.repository).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                self.given.add(name)
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.cache / name)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    repository = shutil.copytree(MODELS / "demo-embedding", tmp_path / "repository")
    for name in DESCRIPTION | WEIGHTS | PICKLED | OTHERS:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).touch()
    found = Hub(repository, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    return found


@pytest.mark.parametrize(
    ("weights", "model_kwargs", "fetched"),
    [
        (False, None, DESCRIPTION),
        (False, {"use_safetensors": False}, DESCRIPTION),
        (True, None, DESCRIPTION | WEIGHTS),
        (True, {"use_safetensors": True}, DESCRIPTION | WEIGHTS),
        (True, {"use_safetensors": False}, DESCRIPTION | WEIGHTS | PICKLED),
    ],
)
def test_what_is_fetched_is_what_is_read(
    weights: bool, model_kwargs: dict[str, Any] | None, fetched: set[str], hub: Hub
) -> None:
    settings = EngineSettings("embedding", "somebody/model", model_kwargs=model_kwargs)
    for _ in range(2):
        assert open_checkpoint(settings, weights=weights).folder == hub.cache
        assert hub.given & (DESCRIPTION | WEIGHTS | PICKLED | OTHERS) == fetched


@pytest.mark.usefixtures("hub")
def test_a_model_of_a_hub_gives_the_vectors_of_its_folder() -> None:
    there = Embedder("somebody/model", dtype="float32", device="cpu")
    here = Embedder(MODELS / "demo-embedding", dtype="float32", device="cpu")
    assert there.embed_documents(["a"]).tolist() == here.embed_documents(["a"]).tolist()


def test_modules_of_a_hub_are_looked_into(hub: Hub) -> None:
    (hub.repository / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    with pytest.raises(CheckpointError, match="was saved with pooling"):
        Embedder("somebody/model").load()


@pytest.mark.parametrize("name", sorted(DESCRIPTION | WEIGHTS | PICKLED))
def test_a_file_that_is_written_anew_makes_another_model(name: str, hub: Hub) -> None:
    settings = EngineSettings("embedding", str(hub.repository))
    before = resolve_local_model(settings)
    assert resolve_local_model(settings) == before
    stamp = (hub.repository / name).stat()
    os.utime(hub.repository / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert resolve_local_model(settings)[1] != before[1]


def test_a_readme_that_is_written_anew_makes_no_other_model(hub: Hub) -> None:
    settings = EngineSettings("embedding", str(hub.repository))
    before = resolve_local_model(settings)
    (hub.repository / "README.md").write_text("longer than before")
    assert resolve_local_model(settings) == before


def test_what_is_not_in_a_folder_here_has_no_version() -> None:
    for name in ("demo", "somebody/model"):
        settings = EngineSettings("embedding", name)
        assert resolve_local_model(settings) == (settings, None)


def test_a_folder_may_be_named_from_home(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(hub.repository.parent))
    settings = EngineSettings("embedding", "~/repository")
    assert open_checkpoint(settings, weights=False).folder == hub.repository
    assert resolve_local_model(settings)[0].model == str(hub.repository)


@pytest.mark.parametrize("model", ["/no/such", "./no/such", "../no/such", "~/no/such", "no/such/"])
def test_the_name_of_a_folder_is_never_looked_for_on_a_hub(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"no such folder: {model}"):
        open_checkpoint(EngineSettings("embedding", model), weights=False)


@pytest.mark.parametrize("error", [MissingExtraError("that", "modelscope"), MemoryError()], ids=repr)
def test_what_is_no_fault_of_the_hub_is_not_blamed_on_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(type(error)) as caught:
        open_checkpoint(EngineSettings("embedding", "somebody/model"), weights=False)
    assert caught.value is error
