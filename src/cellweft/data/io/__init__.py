"""Files: reading, writing, matrices by blocks, outputs that are complete or absent, journals of runs.

Values are interpreted in `cellweft.data`, not here.
"""
