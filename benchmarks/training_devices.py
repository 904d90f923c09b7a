"""Gains in training from several devices and faster steps: parallel trainings, shared batches, compiled.

Two CPU cores represent two devices. Every case is a separate process with one thread per device, and every
number is a ratio to the same work on one device, or to the plain step. `--part` shortens all trainings
equally.

Parallel: fits as users call them, `device="cpu"` against `device="cpu,cpu"`. Shared: one training by two
processes (gloo), each with half of every batch and gradients averaged. For a loss that is not a mean over
cells this is another training; it gives an upper bound of the gain. Steps: the same fit with torch's fused
optimisers, and with compiled steps (compile time reported separately); attention written out compared with
scaled_dot_product_attention.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scale_data import held_out_genes, placing, tonsil

from common import markdown, peak_of_this_process, write

METHODS = ("auto", "stimpute", "place")
N_CELLS = 10_000
SHARED = {  # what each process takes of a batch, by method
    "auto": ("batch_cells", "fold_cells"),
    "stimpute": ("batch", "ae_batch", "cells_per_epoch", "training_cells"),
    "place": ("batch_cells", "batch_spots"),
}


def settings_of(method: str, part: float, *, share: int = 1) -> dict[str, Any]:
    """Return settings with a part of the steps, and a share of each batch."""
    from cellweft.nn.config import AttentionSettings, StemSettings, StImputeSettings

    whole: Any = {
        "auto": AttentionSettings(),
        "stimpute": StImputeSettings.published(N_CELLS, 300),
        "place": StemSettings.from_preset("auto"),
    }[method]
    shortened = ("steps", "fold_steps", "level_steps", "epochs", "ae_epochs")
    found = {name: max(round(part * getattr(whole, name)), 2) for name in shortened if hasattr(whole, name)}
    if share > 1:
        found |= {name: min(getattr(whole, name), N_CELLS) // share for name in SHARED[method]}
    return found


def pair_of(method: str, folder: Path) -> Any:
    """Return the tonsil's shape with 300 of the genes, or cells and spots to place."""
    import cellweft

    if method == "place":
        cells, spots = placing(folder, 20_000, 2_000)
        return cellweft.pair(cells, spots)
    whole = cellweft.pair(*tonsil(folder, N_CELLS))
    return whole.panel(held_out_genes()[0])


def fitted(method: str, pair: Any, settings: dict[str, Any], *, device: str, whole: bool = True) -> float:
    """Return the seconds of a fit: with reliability and all encoders, or of one network alone."""
    import cellweft

    start = time.perf_counter()
    if method == "place":
        chosen = settings if whole else settings | {"models": 1}
        cellweft.Placer(settings=chosen, device=device).fit(pair)
    else:
        cellweft.Imputer(preset=method, settings=settings, reliability=whole, device=device).fit(pair)
    return time.perf_counter() - start


def evaluated(pair: Any, part: float, *, device: str) -> float:
    """Return the seconds of an evaluation of two folds with two seeds."""
    import cellweft

    cells = pair.cells(np.arange(2000))
    methods = [f"auto:steps={round(300 * part)}+fold_steps={round(200 * part)}"]
    start = time.perf_counter()
    cellweft.evaluate_imputation(cells, methods, folds=2, seeds=(0, 1), cluster=False, device=device)
    return time.perf_counter() - start


@contextmanager
def timed_trainings(clock: Callable[[], float] = time.perf_counter) -> Iterator[list[float]]:
    """Yield a list of the seconds spent in training loops, without reading, neighbours and the like."""
    from cellweft.nn import attention, platform_effects, stem, stimpute, training

    seconds: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = clock()
            found = function(*given, **named)
            seconds.append(clock() - start)
            return found

        return run

    steps, epochs = timed(training.fit_steps), timed(training.fit_epochs)
    for room in (attention, platform_effects, stem):
        room.fit_steps = steps  # type: ignore[attr-defined]
    stimpute.fit_epochs = epochs  # type: ignore[attr-defined]
    yield seconds


def side_by_side(folder: Path, part: float, case: str, device: str) -> dict[str, float]:
    """Return the seconds of a fit or an evaluation on some devices."""
    method = "auto" if case == "evaluate" else case
    pair = pair_of(method, folder)
    if case == "evaluate":
        return {"seconds": evaluated(pair, part, device=device), "peak": peak_of_this_process()}
    with timed_trainings() as trainings:
        seconds = fitted(method, pair, settings_of(method, part), device=device)
    return {"seconds": seconds, "training": sum(trainings), "peak": peak_of_this_process()}


def shared(folder: Path, part: float, method: str, rank: int, size: int, port: int) -> dict[str, float]:
    """Return one process's processor time of a training whose batches are shared by several processes."""
    import torch.distributed as dist
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def average(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        grads = [one.grad for group in optimiser.param_groups for one in group["params"]]
        flat = torch.cat([one.flatten() for one in grads])
        dist.all_reduce(flat)
        for one, found in zip(grads, flat.div_(size).split([one.numel() for one in grads]), strict=True):
            one.copy_(found.view_as(one))

    if size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
        register_optimizer_step_pre_hook(average)
    pair = pair_of(method, folder)
    with timed_trainings(
        time.process_time
    ) as trainings:  # without waiting for the other process: an upper bound
        fitted(method, pair, settings_of(method, part, share=size), device="cpu", whole=False)
    return {"training": sum(trainings)}


def stepped(folder: Path, part: float, method: str, how: str) -> dict[str, float]:
    """Return the seconds of training with other steps; compiled ones are run twice, for the compile time."""
    from cellweft.nn import attention, stem, stimpute

    if how == "fused":
        for name in ("Adam", "AdamW"):
            setattr(torch.optim, name, partial(getattr(torch.optim, name), fused=True))
    if how == "compiled":
        compiled = partial(torch.compile, dynamic=True)
        attention.CellMap.forward = compiled(attention.CellMap.forward)  # type: ignore[method-assign]
        attention.correlation_loss = compiled(attention.correlation_loss)
        stimpute.GeneNetwork.forward = compiled(stimpute.GeneNetwork.forward)  # type: ignore[method-assign]
        stimpute.SageLayer.forward = compiled(stimpute.SageLayer.forward)  # type: ignore[method-assign]
        stimpute.similarity_loss = compiled(stimpute.similarity_loss)
        stem.CellEncoder.forward = compiled(stem.CellEncoder.forward)  # type: ignore[method-assign]
        stem.extraction_loss = compiled(stem.extraction_loss)
        stem.transition_loss = compiled(stem.transition_loss)
    pair, settings, found = pair_of(method, folder), settings_of(method, part), {}
    for turn in ("first", "second"):
        with timed_trainings(time.process_time) as trainings:
            fitted(method, pair, settings, device="cpu", whole=False)
        found[turn] = sum(trainings)
    return found


def attended(n_keys: int, n_genes: int, *, width: int = 300, n_queries: int = 4096) -> dict[str, float]:
    """Return the seconds of attention in prediction, written out in blocks and with torch's function."""
    from torch.nn.functional import scaled_dot_product_attention

    from cellweft.nn.mapping import Mapping

    stream = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(*size, generator=stream)
        for size in ((n_queries, width), (n_keys, width), (n_keys, n_genes))
    )
    queries = queries / width**0.5

    def ours() -> torch.Tensor:
        return Mapping(queries=queries, keys=keys).apply(values)

    def whole() -> torch.Tensor:
        return scaled_dot_product_attention(queries[None], keys[None], values[None], scale=1.0)[0]

    def flash() -> torch.Tensor:  # the kernel that does not store the weights needs equal widths
        parts = []
        for columns in values.split(width, dim=1):
            padded = torch.nn.functional.pad(columns, (0, width - columns.shape[1]))
            one = scaled_dot_product_attention(
                queries[None, None], keys[None, None], padded[None, None], scale=1.0
            )
            parts.append(one[0, 0, :, : columns.shape[1]])
        return torch.cat(parts, dim=1)

    found = {}
    with torch.no_grad():
        for name, function in (("ours", ours), ("whole", whole), ("flash", flash)):
            assert torch.allclose(function(), ours(), atol=1e-4)
            times = []
            for _ in range(3):
                start = time.process_time()
                function()
                times.append(time.process_time() - start)
            found[name] = min(times)
    return found


def in_processes(arguments: argparse.Namespace, *cases: list[str], threads: int = 1) -> dict[str, float]:
    """Run cases at the same time in separate processes, and return what the first one measured."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    given = [sys.executable, __file__, "--folder", str(arguments.folder), "--part", str(arguments.part)]
    started = [
        subprocess.Popen([*given, "--case", *case], env=environment, stdout=subprocess.PIPE, text=True)
        for case in cases
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{cases} failed")
    found: dict[str, float] = json.loads(told[0].splitlines()[-1])
    print(cases[0], found, flush=True)
    return found


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def side_table(run: Callable[..., dict[str, float]]) -> pd.DataFrame:
    """Return fits and an evaluation on two devices, and on one that computes with two threads."""
    rows = {}
    for case in (*METHODS, "evaluate"):
        one, two = (run(["side", case, device]) for device in ("cpu", "cpu,cpu"))
        threads = run(["side", case, "cpu"], threads=2)
        rows[case] = {
            "one device, s": one["seconds"],
            "part in training loops": one.get("training", np.nan) / one["seconds"],
            "two devices, ratio": two["seconds"] / one["seconds"],
            "two threads, ratio": threads["seconds"] / one["seconds"],
            "peak memory of two devices, ratio": two["peak"] / one["peak"],
        }
    return pd.DataFrame(rows).T


def shared_table(run: Callable[..., dict[str, float]]) -> pd.DataFrame:
    """Return one training by two processes."""
    rows = {}
    for method in METHODS:
        one = run(["shared", method, "0", "1", "0"])
        port = free_port()
        two = run(*(["shared", method, rank, "2", port] for rank in "01"))
        rows[method] = {"one process, s": one["training"], "two, ratio": two["training"] / one["training"]}
    return pd.DataFrame(rows).T


def steps_table(run: Callable[..., dict[str, float]]) -> pd.DataFrame:
    """Return training with other steps, in processor time."""
    rows = {}
    for method in METHODS:
        plain, fused, compiled = (run(["step", method, how]) for how in ("plain", "fused", "compiled"))
        rows[method] = {
            "plain, s": plain["second"],
            "plain the first time, ratio": plain["first"] / plain["second"],
            "fused, ratio": fused["second"] / plain["second"],
            "compiled, ratio": compiled["second"] / plain["second"],
            "compiling, s": compiled["first"] - compiled["second"],
        }
    return pd.DataFrame(rows).T


def attention_table(run: Callable[..., dict[str, float]]) -> pd.DataFrame:
    """Return attention in prediction, likewise."""
    rows = {}
    for n_keys, n_genes in ((4_000, 77), (16_000, 77), (4_000, 1_000)):
        found = run(["attend", str(n_keys), str(n_genes)])
        rows[f"{n_keys:,} keys, {n_genes:,} genes"] = {
            "by blocks, s": found["ours"],
            "SDPA, ratio": found["whole"] / found["ours"],
            "SDPA of one width, ratio": found["flash"] / found["ours"],
        }
    return pd.DataFrame(rows).T


TABLES: dict[str, tuple[str, Callable[..., pd.DataFrame]]] = {
    "side": ("Trainings side by side", side_table),
    "shared": (
        "One training, each batch shared by two processes, time of the processor in one",
        shared_table,
    ),
    "steps": ("Steps of training, time of the processor", steps_table),
    "attention": ("Attention in prediction, 4,096 cells, time of the processor", attention_table),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where the simulated data lie")
    parser.add_argument("--part", type=float, default=0.1, help="part of the steps of each training")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is None:
        text = "# Training on several devices\n"
        for name in arguments.tables:
            title, table = TABLES[name]
            text += f"\n## {title}\n\n{markdown(table(partial(in_processes, arguments)))}\n"
        write("training_devices", text)
        return
    kind, *rest = arguments.case
    folder, part = arguments.folder, arguments.part
    found = {
        "side": lambda: side_by_side(folder, part, *rest),
        "shared": lambda: shared(folder, part, rest[0], *map(int, rest[1:])),
        "step": lambda: stepped(folder, part, *rest),
        "attend": lambda: attended(*map(int, rest)),
    }[kind]()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
