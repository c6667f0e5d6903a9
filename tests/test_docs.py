"""The documentation: its examples run, its links lead somewhere, nothing public is missing."""

from __future__ import annotations

import doctest
import importlib
import re
import unicodedata
from pathlib import Path

import pytest

import pyssl

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted([*(ROOT / "pyssl").rglob("*.py"), *(ROOT / "cpp").glob("*.[ch]pp")])

# What examples with these names need beside the library.
NEEDS = {
    "pyssl.sweep(": "zarr",
    "pyssl sweep": "zarr",
    "phase_diagram(": "matplotlib",
    "LinearSSL": "sklearn",
    "pyssl.plots": "matplotlib",
    ".page(": "matplotlib",
    "import torch": "torch",
}

INSTALL_AND_TEST = [
    'python -m pip install -e ".[app]" && pyssl report',
    'python -m pip install -e ".[test]" && pytest',
]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a language, with the line each starts in."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in fence.finditer(text)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page make."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = ("".join(c for c in heading.lower() if is_anchor(c)) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def is_anchor(character: str) -> bool:
    return character in " -_" or unicodedata.category(character)[0] in "LN"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = blocks(page, "python")
    if not examples:
        pytest.skip("no examples")
    for name, package in NEEDS.items():
        if any(name in source for _, source in examples):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    # the blocks of a page are one session; between them come the lines that keep the numbering
    session, line = "", 0
    for start, shown in examples:
        # pages show empty lines in an output as they are; doctest wants them marked
        source = re.sub(r"\n(?=\n(?!>>> ))", "\n<BLANKLINE>", shown)
        session += "\n" * (start - line) + source
        line = start + source.count("\n")
    test = doctest.DocTestParser().get_doctest(session, {}, page_name(page), str(page), 0)
    assert test.examples
    report: list[str] = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_readme_has_exactly_two_commands() -> None:
    fences = re.findall(r"^```(\w*)$\n(.*?)^```$", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
    assert [body.strip() for language, body in fences if language == "sh"] == INSTALL_AND_TEST
    assert {language for language, _ in fences} == {"sh", "python"}


@pytest.mark.parametrize(
    "name", [*pyssl.__all__, *(f"augment.{name}" for name in pyssl.augment.__all__)]
)
def test_public_name_is_documented(name: str) -> None:
    reference = "".join(page.read_text() for page in PAGES if "docs" in page.parts)
    assert re.search(rf"\bpyssl\.{name}\b", reference)


def test_sections_that_docstrings_cite_exist() -> None:
    theory = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^##+ (\d(?:\.\d)?)\.? ", theory, re.MULTILINE))
    cited = {
        section
        for source in SOURCES
        for group in re.findall(
            r"theory (\d(?:\.\d)?(?:(?:, | and )\d(?:\.\d)?)*)", source.read_text(encoding="utf-8")
        )
        for section in re.findall(r"\d(?:\.\d)?", group)
    }
    assert len(cited) > 10
    assert cited <= sections


def test_command_line_page_names_every_option() -> None:
    cli = importlib.import_module("pyssl.cli")
    page = (ROOT / "docs/api/command-line.md").read_text(encoding="utf-8")
    commands = next(a for a in cli._parser()._actions if hasattr(a, "choices") and a.choices)
    for name, command in commands.choices.items():
        assert f"pyssl {name}" in page
        options = {option for action in command._actions for option in action.option_strings}
        assert {option for option in options - {"-h", "--help"} if option not in page} == set()
