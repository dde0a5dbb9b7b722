"""What a user gets from `pip install qwen3-rag`."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

from built import Distribution, Environment

PACKAGES = [
    "qwen3_rag",
    "langchain_qwen3_rag",
    "llama_index/embeddings/qwen3_rag",
    "llama_index/postprocessor/qwen3_rag",
    "haystack_integrations/components/embedders/qwen3_rag",
    "haystack_integrations/components/rankers/qwen3_rag",
]

IMPORT_EVERYTHING = """
import json, sys
import qwen3_rag
loaded = sorted({"torch", "transformers"} & set(sys.modules))
missing = [name for name in qwen3_rag.__all__ if not hasattr(qwen3_rag, name)]
after = sorted({"torch", "transformers"} & set(sys.modules))
print(json.dumps({"loaded": loaded, "after": after, "missing": missing, "names": len(qwen3_rag.__all__)}))
"""


def test_wheel_holds_the_package_its_type_marker_and_licence(distribution: Distribution) -> None:
    names = zipfile.ZipFile(distribution.wheel).namelist()
    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top_level == {"qwen3_rag", "langchain_qwen3_rag", "llama_index", "haystack_integrations"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_frameworks_namespaces_stay_namespaces(distribution: Distribution) -> None:
    """A file above our leaves would hide other distributions' parts of the same namespace."""
    names = zipfile.ZipFile(distribution.wheel).namelist()
    shared = [name for name in names if name.startswith(("llama_index/", "haystack_integrations/"))]
    assert shared
    assert [name for name in shared if not name.startswith(tuple(f"{package}/" for package in PACKAGES))] == []


def test_the_wheel_holds_the_demo_pair(distribution: Distribution) -> None:
    names = zipfile.ZipFile(distribution.wheel).namelist()
    for model in ("demo-embedding", "demo-reranker"):
        assert f"qwen3_rag/demo/models/{model}/model.safetensors" in names


def test_metadata_names_licence_readme_and_lowest_python(distribution: Distribution) -> None:
    with zipfile.ZipFile(distribution.wheel) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(wheel.read(path).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = str(metadata.get_payload())
    assert "qwen3-rag" in description
    assert re.findall(r"\]\((?!https?:)[^)]*\)", description) == [], (
        "PyPI cannot follow links into the repository"
    )


def test_wheel_depends_on_no_framework(distribution: Distribution) -> None:
    with zipfile.ZipFile(distribution.wheel) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        requirements = Parser().parsestr(wheel.read(path).decode()).get_all("Requires-Dist", [])
    always = [requirement for requirement in requirements if "extra ==" not in requirement]
    for framework in ("langchain", "llama-index", "haystack", "vllm", "sentence-transformers"):
        assert not [requirement for requirement in always if requirement.startswith(framework)]


def test_sdist_holds_licence_and_tests(distribution: Distribution) -> None:
    with tarfile.open(distribution.sdist) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    wanted = {"LICENSE", "README.md", "README.zh-CN.md", "mkdocs.yml", "pyproject.toml"}
    assert wanted | {"tests/conftest.py", "core/qwen3_rag/py.typed", "docs/data-flow.svg"} <= names
    assert not [name for name in names if name.startswith((".tox", ".mypy_cache", ".ruff_cache", ".git/"))]


def test_installed_package_has_its_public_names_and_imports_no_torch(environment: Environment) -> None:
    found = json.loads(environment.run("python", "-I", "-c", IMPORT_EVERYTHING))
    assert found["names"] > 0
    assert found["missing"] == []
    assert found["loaded"] == found["after"] == []


def test_installed_versions_agree(environment: Environment) -> None:
    code = "import importlib.metadata as m, qwen3_rag; print(m.version('qwen3-rag'), qwen3_rag.__version__)"
    declared, stated = environment.run("python", "-I", "-c", code).split()
    assert declared == stated


def test_installed_command_lists_the_backend(environment: Environment) -> None:
    assert "transformers" in json.dumps(json.loads(environment.run("qwen3-rag", "plugins", "--json")))


def test_installed_demo_works_with_the_core_alone_without_network_and_caches(
    environment: Environment, tmp_path: Path
) -> None:
    """The models come with the wheel."""
    demo = ("qwen3-rag", "demo", "--passages", "100", "--device", "cpu")
    report = json.loads(environment.run_alone(*demo, "--json", home=tmp_path))
    (found,) = report["frameworks"]
    assert found["framework"] == "core"
    assert all(len(answer["reranked"]) == 20 for answer in found["answers"])
    shown = environment.run_alone(*demo, home=tmp_path)
    assert "from qwen3_rag import Embedder, Reranker" in shown


def test_installed_requirements_do_not_conflict(environment: Environment) -> None:
    environment.run("python", "-m", "pip", "check")
