"""weft: weave single cells into tissue."""
