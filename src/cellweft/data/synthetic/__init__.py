"""Simulated tissue, and pseudo-spots made from real cells, with known truth.

The public names are in `cellweft.datasets`.
"""
