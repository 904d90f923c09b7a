"""Files: read, write, matrices by blocks, outputs that are whole or absent, journals of runs.

What a value means is not decided here but in `cellweft.data`.
"""
