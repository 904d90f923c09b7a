"""How far predictions can be trusted: reliability, expected correlation, prediction intervals.

What is learned here comes from genes left out of the panel, never from genes that are predicted.
"""
