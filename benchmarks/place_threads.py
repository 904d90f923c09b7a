"""How much the places of `preset="auto"` change with the number of threads, and with the seed."""

import argparse

import numpy as np
import pandas as pd
import torch

import cellweft
from place_evidence import data_of

from common import markdown, write


def places(pair: cellweft.Pair, *, threads: int, seed: int) -> np.ndarray:
    """Return the places of the cells, in spot spacings."""
    torch.set_num_threads(threads)
    return cellweft.Placer(seed=seed).fit(pair).place().coordinates() / pair.spacing


def moved(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return the distances between two sets of places of the same cells."""
    distances = np.linalg.norm(after - before, axis=1)
    return {
        "median": np.median(distances),
        "90 % of cells below": np.quantile(distances, 0.9),
        "largest": distances.max(),
        "cells moved by more than 0.01": (distances > 0.01).mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    text = "# Places and the number of threads\n\n"
    text += "Distances between the places of the same cells, in spot spacings.\n\n"
    for name in ("somatosensory cortex (osmFISH, 33 genes)", "visual cortex (STARmap, 996 genes)"):
        pair, _, _ = data_of(name)
        basis = places(pair, threads=1, seed=0)
        rows = {
            f"{threads} threads": moved(basis, places(pair, threads=threads, seed=0)),
            "1 thread, another seed": moved(basis, places(pair, threads=1, seed=1)),
        }
        table = markdown(pd.DataFrame(rows).T).replace("| method |", "| against 1 thread |", 1)
        print(f"{name}\n{table}", flush=True)
        text += f"## {name}\n\n{table}\n\n"
    write("place_threads", text, seeds=[0, 1])


if __name__ == "__main__":
    main()
