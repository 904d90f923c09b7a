"""Folders of instruments: counts and coordinates of cells, without images.

Each file contains one `Instrument`; `recognition` detects the instrument of a folder.
"""
