"""Uncertainty of predictions: reliability, expected correlation, prediction intervals, counts.

All models here are learned from panel genes that were left out, never from the requested genes.
"""
