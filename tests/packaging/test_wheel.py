"""What a user gets from `pip install qwen3-rag`."""

from __future__ import annotations

import json
import tarfile
import zipfile
from email.parser import Parser

from built import Distribution, Environment

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
    assert top_level == {"qwen3_rag"}
    assert "qwen3_rag/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_metadata_names_licence_readme_and_lowest_python(distribution: Distribution) -> None:
    with zipfile.ZipFile(distribution.wheel) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(wheel.read(path).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "qwen3-rag" in str(metadata.get_payload())


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
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/conftest.py", "core/qwen3_rag/py.typed"} <= names
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


def test_installed_requirements_do_not_conflict(environment: Environment) -> None:
    environment.run("python", "-m", "pip", "check")
