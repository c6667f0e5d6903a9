"""Conventions of the code base, as tests."""

from __future__ import annotations

import ast
import doctest
import enum
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

import pyssl
from pyssl import _core

ROOT = Path(__file__).resolve().parent.parent
STUB = ast.parse((ROOT / "pyssl/_core.pyi").read_text(encoding="utf-8"))


def public(name: str) -> Any:
    value: Any = pyssl
    for part in name.split("."):
        value = getattr(value, part)
    return value


PUBLIC = [*pyssl.__all__, *(f"augment.{name}" for name in pyssl.augment.__all__)]
DOCUMENTED = [
    name for name in PUBLIC if inspect.isclass(public(name)) or inspect.isfunction(public(name))
]
METHODS = [
    f"{name}.{method}"
    for name in DOCUMENTED
    if inspect.isclass(public(name))
    for method, _ in inspect.getmembers(public(name), inspect.isroutine)
    if not method.startswith("_")
]
DOCUMENTED += [f"pencils.{name}" for name in pyssl.pencils.__all__]
# What numpydoc must not find: no docstring; a summary that is missing, without a capital or a full
# stop; parameters that are unknown, in another order, without a type or a description; a value that
# is returned and not described; no examples.
FORBIDDEN = {"GL08", "SS01", "SS02", "SS03", "PR02", "PR03", "PR04", "PR10", "RT01", "EX01"}

# In pieces, so that this file does not name what it forbids.
HOSTS = ["py" + "pi.", "python" + "hosted", "conda" + ".anaconda", "crates" + ".io", "npm" + "js"]
MACHINE_PATHS = re.compile(r"""(?<![\w.$}~*-])/(?:home|root|Users|work|opt|mnt|srv|tmp)/\w""")


def arguments(signature: str) -> list[tuple[str, object]]:
    """Return names and defaults of the arguments in the text of a `def`."""
    (function,) = ast.parse(signature).body
    assert isinstance(function, ast.FunctionDef)
    taken = function.args
    assert not (taken.kwonlyargs or taken.posonlyargs or taken.vararg or taken.kwarg)
    required = len(taken.args) - len(taken.defaults)
    defaults = [None] * required + [ast.literal_eval(x) for x in taken.defaults]
    return [(a.arg, x) for a, x in zip(taken.args, defaults, strict=True)]


def test_one_version() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert _core.__version__ == version
    assert pyssl.__version__ == version
    assert importlib.metadata.version("pyssl-landscapes") == version
    assert f"\nversion: {version}\n" in citation


def test_stub_names_what_the_extension_has() -> None:
    named = {node.name for node in STUB.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    named |= {
        node.target.id
        for node in STUB.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    built = {name for name in dir(_core) if not name.startswith("_")} | {"__version__"}
    assert named == built


@pytest.mark.parametrize(
    "function",
    [node for node in STUB.body if isinstance(node, ast.FunctionDef)],
    ids=lambda f: f.name,
)
def test_stub_has_the_arguments_of_the_extension(function: ast.FunctionDef) -> None:
    docstring = getattr(_core, function.name).__doc__ or ""
    built = f"def {docstring.splitlines()[0]}: ..."
    assert arguments(ast.unparse(function)) == arguments(built)
    returns = ast.unparse(function.returns) if function.returns else ""
    assert built.endswith(f"-> {returns}: ...")


@pytest.mark.parametrize("name", pyssl.__all__)
def test_public_name_exists(name: str) -> None:
    assert name in dir(pyssl)
    assert getattr(pyssl, name) is not None


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_is_complete(name: str) -> None:
    found = dict(validate(f"pyssl.{name}")["errors"])
    assert {code: found[code] for code in FORBIDDEN & found.keys()} == {}
    value = public(name)
    if "PR01" in found and inspect.isclass(value) and not issubclass(value, enum.Enum):
        # results are read, not made: they describe their attributes
        assert get_doc_object(value)["Attributes"], found["PR01"]
    elif "PR01" in found:
        assert inspect.isclass(value), found["PR01"]


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_docstring(name: str) -> None:
    assert (inspect.getdoc(public(name)) or "").strip()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_run(name: str) -> None:
    report: list[str] = []
    examples = 0
    for test in doctest.DocTestFinder().find(public(name), f"pyssl.{name}", globs={}):
        doctest.DocTestRunner().run(test, out=report.append)
        examples += len(test.examples)
    assert examples
    assert not report, "".join(report)


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def test_no_machine_paths_or_registries() -> None:
    found = []
    for file in tracked_files():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            if any(host in line for host in HOSTS) or MACHINE_PATHS.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_kernels_know_nothing_of_python() -> None:
    for file in (ROOT / "cpp").iterdir():
        allowed = file.name.startswith("bind") or file.name == "module.cpp"
        assert allowed or not re.search(r"pybind11|Python\.h", file.read_text(encoding="utf-8"))


def test_every_kernel_file_is_compiled_for_every_instruction_set() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.search(r"set\(KERNELS ([^)]*)\)", cmake)
    assert listed
    assert set(listed[1].split()) == {f"cpp/{f.name}" for f in (ROOT / "cpp").glob("*_kernels.cpp")}
