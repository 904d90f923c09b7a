"""Folders as instruments write them: counts and places of the cells, without images.

One file for each instrument, each an `Instrument`. `recognition` tells which one wrote a folder.
"""
