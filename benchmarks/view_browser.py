"""Speed of the page of `cellweft view`: the first picture, and frames while panning and zooming.

A cellweft result with intervals and a tissue is made, so that measured, imputed and uncertainty are shown
together. One process serves it, and a headless Chromium on the same machine shows it. WebGL is rendered in
software: there is no graphics card, and the browser shares the cores with the server.
"""

import argparse
import math
import multiprocessing
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cellweft import view
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.io.write import ResultWriter

from common import write

N_GENES, N_PANEL, N_TYPES = 16, 6, 9
SECONDS = 3.0  # of panning, and as many of zooming
SIZE = {"width": 1280, "height": 800}
SHOWN = {"one panel": "imputed", "three panels": "measured,imputed,uncertainty"}
OPTIONS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTLED = "() => window.cellweft && window.cellweft.state().settled"


def make(folder: Path, n_cells: int) -> tuple[Path, Path]:
    """Write a result and its tissue; return their paths."""
    random = np.random.default_rng(0)
    turn, far = random.uniform(0, 2 * np.pi, n_cells), np.sqrt(random.uniform(0, 1, n_cells))
    far *= 1 + 0.2 * np.sin(3 * turn) + 0.1 * np.sin(7 * turn + 1)
    places = (
        np.stack([far * np.cos(turn), 0.8 * far * np.sin(turn)], axis=1) * 6 * math.sqrt(n_cells)
    ).astype("f4")
    layer = np.clip((far * N_TYPES / 1.3).astype(int), 0, N_TYPES - 1)
    types = np.where(random.random(n_cells) < 0.7, layer, random.integers(0, N_TYPES, n_cells))
    values = random.gamma(0.8, 0.9, (N_TYPES, N_GENES))[types] * random.uniform(0.7, 1.3, (n_cells, N_GENES))
    values = values.astype(np.float32)
    names = pd.Index([f"Gene{number:02d}" for number in range(N_GENES)])
    obs = pd.DataFrame({"cell_type": pd.Categorical.from_codes(types, [f"Type {n}" for n in range(N_TYPES)])})
    obs.index = pd.RangeIndex(n_cells).astype(str)
    var = pd.DataFrame(
        {"measured": np.arange(N_GENES) < N_PANEL, "reliability": np.linspace(0.9, 0, N_GENES)}, index=names
    )
    uns = {"cellweft": {"schema_version": SCHEMA_VERSION, "interval": 0.9}}
    result, tissue = folder / "imputed.zarr", folder / "tissue.h5ad"
    written = ResultWriter(
        result, obs=obs, var=var, obsm={"spatial": places}, uns=uns, layers=("lower", "upper")
    )
    with written as writer:
        for start in range(0, n_cells, 100_000):
            rows = slice(start, min(n_cells, start + 100_000))
            for name, factor in ((None, 1.0), ("lower", 0.7), ("upper", 1.4)):
                writer.write(rows, slice(0, N_GENES), values[rows] * np.float32(factor), layer=name)
    counts = random.poisson(np.expm1(values[:, :N_PANEL]).clip(max=50)).astype(np.float32)
    AnnData(counts, obs=obs[[]], var=pd.DataFrame(index=names[:N_PANEL])).write_h5ad(tissue)
    return result, tissue


def serve(result: Path, tissue: Path, told: Connection) -> None:
    """Serve until asked to stop; a separate process, like `cellweft view`."""
    with view(result, tissue=tissue, open_browser=False, block=False) as viewer:
        told.send(viewer.url)
        told.recv()


MOVE = """([kind, seconds]) => new Promise((done) => {
  const canvas = [...document.querySelectorAll(".panel canvas")].at(-1);
  const box = canvas.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const start = performance.now();
  const frame = (now) => {
    const passed = (now - start) / 1000;
    const place = { pointerId: 1, bubbles: true, clientX: x, clientY: y };
    if (kind === "zoom") {
      canvas.dispatchEvent(new WheelEvent("wheel", { ...place, deltaY: passed < seconds / 2 ? -12 : 12 }));
    } else {
      const way = { clientX: x + 60 * Math.sin(3 * passed), clientY: y + 60 * Math.sin(2 * passed) };
      canvas.dispatchEvent(new PointerEvent("pointermove", { ...place, ...way }));
    }
    if (passed < seconds) requestAnimationFrame(frame);
    else done();
  };
  requestAnimationFrame(frame);
})"""
"""Sends one pointer or wheel event per frame."""


def moving(page: Any, kind: str) -> dict[str, float]:
    """Move for some seconds; return frames per second, their slowest twentieth, and cells per frame."""
    page.evaluate(MOVE, [kind, SECONDS])
    frames = page.evaluate("window.cellweft.frames()")
    page.wait_for_function(SETTLED)
    times = sorted(frames["times"])
    slow = times[int(0.95 * len(times))]
    return {"median": 1000 / statistics.median(times), "slow": 1000 / slow, "cells": frames["cells"]}


def measure(page: Any, url: str, shown: str) -> dict[str, float]:
    """Open the page afresh and use it."""
    page.goto("about:blank")
    page.goto(f"{url}#d=0&g=Gene00&m={shown}")
    page.wait_for_function(SETTLED)
    frames = page.evaluate("window.cellweft.frames()")
    box = page.locator(".panel canvas").last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    panned = moving(page, "pan")
    page.mouse.up()
    zoomed = moving(page, "zoom")
    start = time.perf_counter()
    page.keyboard.press("]")
    page.wait_for_function(
        "() => window.cellweft.state().gene === 'Gene01' && window.cellweft.state().settled"
    )
    return {
        "first picture, s": frames["firstPicture"] / 1000,
        "all cells, s": frames["wholePicture"] / 1000,
        "panning, frames/s": panned["median"],
        "slowest 5 %": panned["slow"],
        "zooming, frames/s": zoomed["median"],
        "slowest 5 % ": zoomed["slow"],
        "cells per frame": panned["cells"],
        "another gene, s": time.perf_counter() - start,
    }


def rows(n_cells: int, chromium: str) -> list[dict[str, Any]]:
    """Measure one size of data with one panel and with three."""
    from playwright.sync_api import sync_playwright

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        process = context.Process(target=serve, args=(*make(Path(folder), n_cells), theirs))
        process.start()
        url = ours.recv()
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        found = []
        for name, shown in SHOWN.items():
            page = browser.new_context(viewport=SIZE).new_page()
            measure(page, url, shown)  # the first visit reads the files from disk
            found.append({"cells": f"{n_cells:,}", "shown": name, **measure(page, url, shown)})
            page.context.close()
        browser.close()
        ours.send("end")
        process.join()
    return found


def text_of(table: pd.DataFrame) -> str:
    """Return the table as Markdown."""
    lines = [
        "| " + " | ".join(name.strip() for name in table.columns) + " |",
        "| --- " * len(table.columns) + "|",
    ]
    for _, row in table.iterrows():
        cells = [one if isinstance(one, str) else f"{one:,.0f}" if one >= 10 else f"{one:.2f}" for one in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    options = parser.parse_args()
    table = pd.DataFrame([row for n_cells in options.cells for row in rows(n_cells, options.chromium)])
    write(
        "view_browser",
        "# The page of `cellweft view` in the browser\n\n"
        "Rendered in software (SwiftShader) on the same cores as the server; window of 1280 x 800.\n"
        "First picture: from the navigation until a sample of the cells is drawn; all cells: until each is.\n"
        "Frames per second are medians of three seconds of movement. A moving picture draws as many cells\n"
        "of a fixed random order as its frame has time for; at rest it draws all.\n\n" + text_of(table),
    )


if __name__ == "__main__":
    main()
