"""Simulated data with known truth, and public datasets of real tissues."""

from cellweft.data.public import list_public, load_public
from cellweft.data.synthetic.cortex import simulate_cortex
from cellweft.data.synthetic.pseudospots import PseudoSpots, add_noise, pseudo_spots
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue

__all__ = [
    "PseudoSpots",
    "SimulatedTissue",
    "add_noise",
    "list_public",
    "load_public",
    "pseudo_spots",
    "simulate_cortex",
    "simulate_tissue",
]
