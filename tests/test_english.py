"""Expressions that were removed from documentation, messages and docstrings stay out of them."""

import ast
import json
import re
from pathlib import Path

import pytest

import cellweft

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cellweft.__file__).parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "changelog.d").glob("*.md"),
        *(ROOT / "fuzz").glob("*.md"),
        *(path for kind in ("md", "ipynb") for path in (ROOT / "docs").glob(f"*.{kind}")),
        *(path for kind in ("md", "ipynb") for path in (ROOT / "docs" / "tutorials").glob(f"*.{kind}")),
    ]
)
MODULES = sorted(PACKAGE.rglob("*.py"))

STRUCK = {
    r"values that are no (counts|numbers|lists|positions)": "values that are not counts",
    r"are no (counts|numbers|colours)\b": "are not counts",
    r"(?<!there )is no (amino acid|number|result of|whole number|colour|expression)\b": "is not a number",
    r"that are none\b": "that are not numbers",
    r"(has|have) lost (the|their) place": "does not measure the position",
    r"(leave|left) (the \w+ )?away": "omit",
    r"what (yours|it|theirs) is worth, ": "run evaluate to see how well it works",
    r"they stand below": "they are listed below",
    r"the check has\b": "the check found",
    r"(can|is to|are to) be had\b": "is available",
    r"by (itself|themselves) found|found by themselves": "found automatically",
    r"hand over": "pass",
    r"tells? (all )?of it\b": "describes it",
    r"beside whom": "neighbours",
    r"(came|comes) in and\b|\bwhat came in\b": "inputs",
    r"goes on from there|go(es)? on where it": "resume",
    r"genes? (is|are) called reliable": "reliable genes",
    r"(is|are) there already": "exists",
    r", say\.": "for example",
    r"one name a line": "one name per line",
    r"names between commas": "names separated by commas",
    r"takes besides": "options for",
    r"as other commands take them\.": "options that are shared by several commands",
    r"what stands (above|here)\b": "title",
    r"look at what made": "check how it was computed",
    r"rest the pointer": "hover",
    r"for less long": "shorter",
    r"honest (ones|answer)": "tests that account for the uncertainty",
    r"may I believe": "can I trust",
    r"lent? (it|a command|a function)\b": "give",
    r"see to it that": "ensure",
    r"at home in one": "lives in one",
    r"loses? the place\b": "loses the position",
    r"(each|every) spot is made of": "which cell types each spot contains",
    r"how far (they are|it is) off": "how large the error is",
    r"was it worth\b": "how accurate was it",
    r"out of the drawer": "compare the hidden genes",
    r"what to take home": "take-home messages",
    r"(cells?|it|they) lived\b": "true positions; where cells came from",
    r"lives? everywhere": "occurs everywhere",
    r"out of its range": "out of range",
    r"those it was fitted to": "those of the fit",
    r"where to draw[;,]": "axes to draw on",
    r"stands? (twice|more than once)": "occurs twice; duplicate names",
    r"in case alone": "only in case",
    r"not complete\b": "incomplete",
    r"(none is there|where nothing is)\b": "there are none; does not exist",
    r"into memory whole": "completely",
    r"taken the other way round": "swapped",
    r"bring (all|them) to (one|the same)": "convert",
    r"came whole": "downloaded completely",
    r"less is better": "lower is better",
    r"name the one to take": "choose one",
    r"one gene a line|a boolean for each\b": "one gene per line",
    r"\bmiddling\b": "moderate",
    r"\bin truth:": "really",
    r", as you said": "as specified",
    r", where it is used": "to which it applies",
    r"(Axes|colour map) of matplotlib": "matplotlib Axes, matplotlib colour map",
    r"genes? that the reference does not have": "a gene is not in the reference",
    r"nothing at the path\b": "the path does not exist",
}
"""Patterns, ignoring case, and what to write instead."""

STRUCK_FROM_PAGES = {
    r"\bin place of\b": "instead of",
    r"\b(is|are|was|were) told\b": "is reported",
    r"\bfar(ther)? off\b": "the error is larger",
    r"\basked for\b": "requested",
    r"\bgo(es)? on (with|from|in)\b": "continues, resumes",
    r"\bbeside\b": "next to, in addition to, compared with",
    r"\bwhere there (is|are)\b": "if there is",
    r"\bas (it|they) stands?\b": "unchanged",
    r"\bhand(s|ed)? on\b": "passes on, re-exports",
    r"\banew\b": "again",
    r"\blikeliest\b": "most likely",
    r"\bwhat it is worth\b": "how much it helps",
    r"\bdecides? a place\b": "determines a position",
}
"""Further patterns that pages must not contain."""

HEADINGS = {"Write it", "Write it down", "See it", "Seen", "Keep it", "Public names", "Under noise"}
"""Removed headings: write Save results, Plots, API."""


def problems(text: str, struck: dict[str, str] = STRUCK) -> list[str]:
    """Return the removed expressions in a text, each with what to write instead."""
    return [
        f"{match[0]!r}: write {better!r}"
        for pattern, better in struck.items()
        for match in re.finditer(pattern, " ".join(text.split()), flags=re.IGNORECASE)
    ]


def strings(module: Path) -> list[str]:
    """Return the docstrings and messages of a module, which are all strings with a space."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in nodes if isinstance(node.value, str) and " " in node.value]


def prose_of(page: Path) -> str:
    """Return the text of a page or notebook without its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_are_in_plain_english(page: Path) -> None:
    prose = prose_of(page)
    assert problems(prose, STRUCK | STRUCK_FROM_PAGES) == []
    assert HEADINGS.isdisjoint(re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE))


def test_messages_and_docstrings_are_in_plain_english() -> None:
    found = {
        module.relative_to(PACKAGE).as_posix(): said
        for module in MODULES
        if (said := [problem for text in strings(module) for problem in problems(text)])
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ("The values are not counts.", True),
        ("Values that\n    are no counts.", False),
        ("Single-cell RNA-seq has lost the place.", False),
        ("There is no number of neighbours to choose.", True),
    ],
)
def test_removed_expressions_are_found(text: str, is_plain: bool) -> None:
    assert (problems(text) == []) is is_plain
