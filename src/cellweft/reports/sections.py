"""The whole report as plain data: its sections and their contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from cellweft._typing import Progress, no_progress
from cellweft.data._pair import Pair
from cellweft.data.io.keys import LOWER, RELIABILITY
from cellweft.reports.accuracy import quality_blocks, verdict
from cellweft.reports.document import Block, Code, Heading, Link, Listing, Name, Page, Section, text
from cellweft.reports.formatting import CAUTIONS, PAPERS
from cellweft.reports.genes import gallery_blocks, gene_blocks, interval_blocks, reliable_genes
from cellweft.reports.inputs import Given
from cellweft.reports.labels import label_blocks, label_cautions, label_verdicts
from cellweft.reports.placement import composition_blocks, placement_blocks
from cellweft.reports.provenance import (
    commands,
    input_blocks,
    input_cautions,
    made_facts,
    run_blocks,
    spillover_cautions,
)
from cellweft.reports.standards import standards_table, tissue_width


def page_of(
    given: Given,
    *,
    title: str,
    genes: Sequence[str] | None = None,
    truth: Pair | None = None,
    true_places: str | NDArray[np.float64] | None = None,
    progress: Progress = no_progress,
) -> Page:
    """Return the page of a report.

    Parameters
    ----------
    given
        The inputs of the report.
    title
        Title of the report.
    genes
        Additional genes to plot.
    truth
        Measurements of genes that are not on the panel, with the reference, if available.
    true_places
        True positions of the placed cells, if known.
    progress
        Called after each section.
    """
    has_genes = given.imputed is not None or bool(given.scored(place=False))

    def quality() -> tuple[Block, ...]:
        return (*quality_blocks(given), *interval_blocks(given, truth)) if has_genes else ()

    has_places = given.placed is not None or bool(given.scored(place=True))

    def places() -> tuple[Block, ...]:
        return placement_blocks(given, true_places) if has_places else ()

    parts: tuple[tuple[str, str, Callable[[], tuple[Block, ...]]], ...] = (
        ("summary", "Summary", lambda: _short(given)),
        ("inputs", "Inputs", lambda: input_blocks(given)),
        ("run", "Runs", lambda: run_blocks(given)),
        ("quality", "Accuracy of the imputed genes", quality),
        ("genes", "Which genes to trust", lambda: gene_blocks(given)),
        ("gallery", "Genes in the tissue", lambda: gallery_blocks(given, genes, truth)),
        ("labels", "Cell types", lambda: label_blocks(given)),
        ("placement", "Placed cells", places),
        ("composition", "Composition of the spots", lambda: composition_blocks(given)),
        ("cautions", "Caveats", lambda: (_cautions(given),)),
        ("reproduce", "Citation and reproduction", lambda: _closing(given)),
    )
    sections = []
    for number, (key, head, make) in enumerate(parts, 1):
        if blocks := make():
            sections.append(Section(key=key, title=head, blocks=blocks))
        progress("sections", number, len(parts))
    names = (*(item.name for item in given.results), *(item.name for item in given.scores))
    return Page(title=title, made_of=names, sections=tuple(sections), version=version("cellweft"))


def _short(given: Given) -> tuple[Block, ...]:
    """Return the verdicts with their thresholds, and the number of reliable genes."""
    blocks: list[Block] = [verdict(scores, given.imputed, lead=True) for scores in given.scored(place=False)]
    if given.imputed is not None and (reliable := reliable_genes(given.imputed)):
        said = " are marked as reliable. Use the others with care, or not at all."
        blocks.append(text("Of the genes, ", *reliable, said, tone="note"))
    blocks += label_verdicts(given)
    width = tissue_width(given)
    blocks += [verdict(scores, given.placed, lead=True, width=width) for scores in given.scored(place=True)]
    for subject, result, place in (
        ("Accuracy of the imputed genes", given.imputed, False),
        ("Accuracy of the positions", given.placed, True),
    ):
        if result is not None and not given.scored(place=place):
            blocks.append(text(f"{subject} was not tested: no scores were given.", tone="caution"))
    names = ["correlation", "coverage"] if given.scored(place=False) else []
    names += ["calibration", "unknown"] if given.labels is not None else []
    names += ["error", "hits"] if given.scored(place=True) else []
    if names:
        blocks.append(standards_table(names))
    return tuple(blocks)


def _cautions(given: Given) -> Listing:
    said = [*input_cautions(given), *spillover_cautions(given), *label_cautions(given)]
    data = None if given.imputed is None else given.imputed.data
    there = {
        "imputed": data is not None,
        "reliability": data is not None and RELIABILITY in data.var and data.var[RELIABILITY].notna().any(),
        "interval": data is not None and LOWER in data.layers,
        "scores": given.scored(place=False),
        "labels": given.labels,
        "placed": given.placed,
        "spots": given.spots,
    }
    kinds = [kind for kind, one in there.items() if one]
    said += [text(one, tone="caution") for kind in kinds for one in CAUTIONS[kind]]
    if not kinds:
        said.append(text("Scores of positions are only valid for cells like these.", tone="caution"))
    return Listing(tuple(said))


def _closing(given: Given) -> tuple[Block, ...]:
    papers = [text(Link(*paper)) for paper in PAPERS.values()]
    own = text("cellweft, version ", Name(version("cellweft")), ".")
    blocks: list[Block] = [Heading(("How to cite",)), Listing((*papers, own))]
    if lines := commands(given):
        blocks += [
            Heading(("Commands to reproduce these results",)),
            text(
                "Use the inputs and versions above. The commands are reconstructed from the records: "
                "options for reading the inputs, such as the columns of labels and coordinates, are only "
                "included if they were recorded."
            ),
            *made_facts(given),
            Code(lines),
        ]
    return tuple(blocks)
