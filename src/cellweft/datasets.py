"""Simulated data with known truth: tissues, and spots that are sums of cells."""

from cellweft.data.synthetic.cortex import simulate_cortex
from cellweft.data.synthetic.pseudospots import PseudoSpots, add_noise, pseudo_spots
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue

__all__ = [
    "PseudoSpots",
    "SimulatedTissue",
    "add_noise",
    "pseudo_spots",
    "simulate_cortex",
    "simulate_tissue",
]
