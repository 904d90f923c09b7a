"""Methods to compare with, all behind one call."""

from weft.peers.baselines import Baseline, attention, knn, reference_mean

BASELINES: dict[str, Baseline] = {"mean": reference_mean, "knn": knn, "attention": attention}
"""The baselines that always stand beside, by the name that `weft.evaluate_imputation` takes."""
