"""Cell types of the reference on the tissue, with calibrated probabilities."""
