"""The page on gene networks: its commands are understood, its sessions run, its links lead somewhere."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

import weft
from weft.cli import app
from weft.data.simulate import simulate_tissue
from weft.esm_input import checked_proteins

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "networks.md").read_text(encoding="utf-8")
NAMES = ["Gad1", "Gad2", "Slc32a1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands() -> list[str]:
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("weft ")]


@pytest.mark.parametrize("line", commands())
def test_the_commands_are_understood(line: str) -> None:
    command = typer.main.get_command(app)
    name, *arguments = line.split()[1:]
    command.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


class TinyEmbedder:
    """In place of a model of 650 million weights: three numbers a protein."""

    def embed_to(self, proteins: str, output: str) -> None:
        genes = list(checked_proteins(proteins))
        values = np.random.default_rng(0).random((len(genes), 3), dtype=np.float32)
        pd.DataFrame(values, index=genes, columns=["0", "1", "2"]).to_parquet(output)


def test_the_sessions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tissue = simulate_tissue(n_spatial=60, n_reference=60, n_genes=24, n_panel=12)
    names = dict(zip(tissue.sc.var_names[:3], NAMES, strict=True))
    for path, data in (("atlas.h5ad", tissue.sc), ("tissue.h5ad", tissue.st)):
        data.var_names = [names.get(one, one) for one in data.var_names]
        data.write_h5ad(path)
    Path("mouse.fa").write_text("".join(f">{name} x\nMASSTPSPAT\n" for name in NAMES))
    write_string(NAMES)

    published, find = weft.Imputer, weft.find_proteins

    def quick(settings: dict[str, Any], **options: Any) -> weft.Imputer:
        blink = {"k": 5, "hidden": 4, "epochs": 1, "ae_epochs": 1}
        return published(settings=settings | blink, reliability=False, **options)

    def in_file(genes: str, organism: str) -> weft.ProteinTable:
        return find(genes, organism=organism, proteome="mouse.fa")

    monkeypatch.setattr(weft, "Imputer", quick)
    monkeypatch.setattr(weft, "find_proteins", in_file)
    monkeypatch.setattr(weft, "ProteinEmbedder", TinyEmbedder)
    session: dict[str, Any] = {}
    first, *others = blocks("python")
    for block in (*others, first):  # STRING's names first: its edges are used by the other
        exec(compile(block, "networks.md", "exec"), session)
    edges = weft.read_edges("string.tsv")
    assert {frozenset(edges.genes[pair]) for pair in edges.pairs} == {frozenset(NAMES[:2])}
    np.testing.assert_allclose(edges.weights, [0.9])
    known = {name: part["known_genes"] for name, part in session["imputer"].network_.items()}
    assert known == {"embedding": 3, "gene_sets": 3, "edges": 2, "expression": 24}
    assert session["imputer"].network_["embedding"]["share"] == 2


def write_string(names: list[str]) -> None:
    """Write files as STRING's: a strong edge, a weak one, and one of a protein without a name."""
    ids = [f"10090.ENSMUSP{number:011}" for number in range(4)]
    info = pd.DataFrame({"#string_protein_id": ids[:3], "preferred_name": names, "annotation": 'a "b'})
    info.to_csv("10090.protein.info.v12.0.txt.gz", sep="\t", index=False, quoting=3)
    pairs = [(ids[0], ids[1], 900), (ids[1], ids[0], 900), (ids[0], ids[2], 400), (ids[0], ids[3], 950)]
    links = pd.DataFrame(pairs, columns=["protein1", "protein2", "combined_score"])
    links.to_csv("10090.protein.links.v12.0.txt.gz", sep=" ", index=False)


@pytest.mark.parametrize("page", sorted(one.name for one in DOCS.glob("*.md")))
def test_links_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (DOCS / page).read_text(encoding="utf-8"))
    missing = [one for one in targets if "://" not in one and not (DOCS / one).exists()]
    assert not missing
