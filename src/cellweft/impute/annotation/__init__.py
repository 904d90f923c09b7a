"""Transfer of cell types from the reference to the tissue, with calibrated probabilities."""
