"""Reliability of weft's own method: the correlation that each gene is expected to reach, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from weft._compute import BLOCK_GENES, row_blocks
from weft._keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER
from weft._typing import FloatArray, IntArray
from weft.attending import Attending, OutOfFold
from weft.data.pair import Pair
from weft.predictability import SMALLEST_PANEL, Predictability, correlate, fit_predictability, summaries


@dataclass(frozen=True, kw_only=True, eq=False)
class Trust:
    """What was learned of how well genes are predicted, and for which panel.

    Attributes
    ----------
    known
        From a gene's summaries to its expected correlation.
    panel
        (n_panel,) names of the genes it was learned from, as the reference spells them.
    """

    known: Predictability
    panel: NDArray[np.str_]

    def table(
        self,
        attending: Attending,
        genes: IntArray,
        *,
        names: NDArray[np.str_],
        predicted: FloatArray | None = None,
    ) -> pd.DataFrame:
        """Return a row per gene: expected Pearson correlation, its interval, and whether it is reliable.

        Parameters
        ----------
        attending
            What predicts.
        genes
            (n_genes,) positions in the reference.
        names
            (n_genes,) their names there.
        predicted
            (n_sample, n_genes) predictions to judge in place of its own, of genes off the panel.

        Returns
        -------
        ``reliability``: 0 to 1. ``reliability_lower``, ``reliability_upper``: -1 to 1; nine in ten genes lie
        between. ``reliable``: whether the interval begins above 0 and the score is above 0.2. For a panel
        gene they are of its prediction made without it.
        """
        score = np.empty(len(genes))
        for part in row_blocks(len(genes), BLOCK_GENES):
            own, carried, within = attending.sampled(genes[part])
            features = summaries(
                own if predicted is None else predicted[:, part],
                carried,
                reference=attending.columns.dense(genes[part]),
                queries=attending.queries,
                within=within,
            )
            score[part] = self.known.score(features)[0]
        if predicted is None:
            place = {str(name): number for number, name in enumerate(self.panel)}
            for number, name in enumerate(names):
                if str(name) in place:
                    score[number] = self.known.panel_scores[place[str(name)]]
        lower, upper = self.known.interval(score)
        return pd.DataFrame(
            {
                RELIABILITY: score,
                RELIABILITY_LOWER: lower,
                RELIABILITY_UPPER: upper,
                "reliable": self.known.reliable(score),
            }
        )


def fit_trust(attending: Attending, held_out: OutOfFold, pair: Pair) -> Trust | None:
    """Learn from panel genes, each predicted without it; None where they are too few.

    Parameters
    ----------
    attending
        What predicts.
    held_out
        Predictions of the panel's genes without them.
    pair
        The data.
    """
    if len(pair.shared_genes) < SMALLEST_PANEL:
        return None
    features = summaries(
        held_out.predicted,
        held_out.carried,
        reference=attending.columns.dense(pair.sc_shared),
        queries=attending.queries,
        within=held_out.within,
    )
    known = fit_predictability(features, correlate(held_out.predicted, held_out.truth))
    return Trust(known=known, panel=pair.shared_genes)
