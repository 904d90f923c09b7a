"""Run the notebooks on real data, and store what comes out in them.

They read files by name alone, so each runs in a folder of its own with links to the data. The site shows what
is stored: it is built where the data are not.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

DOCS = Path(__file__).parent
NOTEBOOKS = {path.stem: path for path in (*DOCS.glob("*.ipynb"), *DOCS.glob("tutorials/*.ipynb"))}
DATA = Path(
    os.environ.get("CELLWEFT_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
).resolve()


def smaller(picture: str) -> str:
    """Return a picture with 256 colours, as the notebook holds it: base64 of a PNG."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    # Of the ways to choose colours, this one keeps those that few dots have.
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def execute(path: Path) -> None:
    """Run a notebook from the first cell to the last, and store its outputs in it."""
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm, where ipywidgets are not installed
    notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for file in DATA.glob("*.h5ad"):
            (Path(folder) / file.name).symlink_to(file)
        client = NotebookClient(
            notebook, timeout=3600, record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    notebook.metadata["language_info"] = {"name": "python"}  # else it changes with the version of Python
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(sorted(NOTEBOOKS))}; all by default")
    names = parser.parse_args().names or sorted(NOTEBOOKS)
    if unknown := set(names) - set(NOTEBOOKS):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    if not DATA.is_dir():
        sys.exit(f"There are no data in {DATA}. Name their folder: CELLWEFT_SHARED_DATA=/path/to/data.")
    for name in names:
        execute(NOTEBOOKS[name])


if __name__ == "__main__":
    main()
