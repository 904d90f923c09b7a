"""How fast proteins are embedded: random weights of the shape of ESM-2, proteins of realistic lengths.

The rate is that of `ProteinEmbedder.embed_to` from its first finished batch to its last, with all work in
between: tokens, transfers, pooling, and a part on disk for every batch. It is compared with the rate of one
large matrix product on the same device, in the same precision.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import EsmConfig, EsmModel

from cellweft.genes.esm.embedder import ProteinEmbedder
from cellweft.genes.esm.model import cut

from common import markdown, write

SIZES = {  # layers, numbers per residue, heads
    "8M": (6, 320, 20),
    "35M": (12, 480, 20),
    "150M": (30, 640, 20),
    "650M": (33, 1280, 20),
    "3B": (36, 2560, 40),
}
LETTERS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
MEDIAN, SPREAD, SHORTEST, LONGEST = 400, 0.75, 30, 5000
"""Distribution of the lengths: log-normal, roughly like that of mammalian proteins."""


def make_model(size: str, folder: Path, device: torch.device) -> Path:
    """Save a network with random weights."""
    n_layers, n_dimensions, heads = SIZES[size]
    config = EsmConfig(
        vocab_size=len(LETTERS),
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=n_dimensions,
        num_hidden_layers=n_layers,
        num_attention_heads=heads,
        intermediate_size=4 * n_dimensions,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
    )
    with device:
        EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(LETTERS))
    return folder


def make_proteins(count: int) -> dict[str, str]:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(MEDIAN), SPREAD, count).astype(int), SHORTEST, LONGEST)
    return {
        f"Gene{number}": "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))
        for number, length in enumerate(lengths)
    }


def operations(proteins: dict[str, str], embedder: ProteinEmbedder) -> float:
    """Return the multiplications and additions of the network for these proteins, without padding."""
    source = embedder.source
    each = 4 * source.n_dimensions**2 + 2 * source.n_dimensions * source.width
    lengths = [len(one) for one in proteins.values()]
    tokens = np.array(
        [one.n_tokens for one in cut(lengths, window=embedder.window, overlap=embedder.overlap)], float
    )
    # two products of tokens x tokens x n_dimensions in the attention of a layer
    return source.n_layers * (2 * each * tokens.sum() + 4 * source.n_dimensions * (tokens**2).sum())


def product_rate(device: torch.device, precision: str) -> float:
    """Return the operations per second of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 1536
    one, other = torch.randn(2, size, size, device=device, dtype=getattr(torch, precision))
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        made = one @ other
        made[0, 0].item()  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measured(embedder: ProteinEmbedder, proteins: dict[str, str], folder: Path) -> dict[str, float]:
    """Embed the proteins; return the time that took."""
    times: list[tuple[float, int]] = []
    start = time.perf_counter()
    embedder.embed_to(
        proteins,
        folder / "esm.parquet",
        overwrite=True,
        progress=lambda _stage, done, _total: times.append((time.perf_counter(), done)),
    )
    total = time.perf_counter() - start
    # The call before any batch, and the first batch, which loads kernels, are left out of the rate.
    (begin, before), (end, after) = times[1], times[-1]
    order = sorted(proteins, key=lambda name: -len(proteins[name]))  # as they are embedded
    counted = {name: proteins[name] for name in order[before:after]}
    plan, device = embedder.plan(counted), torch.device(embedder.device)
    seconds = end - begin
    rate = operations(counted, embedder) / seconds
    return {
        "proteins/s": len(counted) / seconds,
        "tokens/s": plan.n_tokens / seconds,
        "TFLOP/s": rate / 1e12,
        "relative to one product": rate / product_rate(device, plan.precision),
        "total seconds": total,
        **({} if device.type == "cpu" else memory(embedder.plan(proteins).peak_bytes)),
    }


def memory(planned: int) -> dict[str, float]:
    """Return the peak memory on the GPU, and the planned one."""
    return {"GB on the GPU": torch.cuda.max_memory_allocated() / 1e9, "GB planned": planned / 1e9}


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="650M" if on_gpu else "35M")
    parser.add_argument("--proteins", type=int, default=20_000 if on_gpu else 24)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16_384 if on_gpu else 4_096])
    asked = parser.parse_args()
    proteins, rows = make_proteins(asked.proteins), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(asked.size, folder / "model", device)
        for tokens in asked.tokens:
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            embedder = ProteinEmbedder(model=str(model), tokens_per_batch=tokens, device=device.type)
            rows[f"batches of {tokens:,} tokens"] = measured(embedder, proteins, folder)
            print(pd.DataFrame(rows).T.to_string())
        precision = embedder.plan(proteins).precision
    lengths = [len(one) for one in proteins.values()]
    where = torch.cuda.get_device_name() if on_gpu else "the CPU"
    write(
        "embed_speed",
        f"# Embedding {asked.proteins:,} proteins with the shape of ESM-2 {asked.size}\n\n"
        f"Random weights, {precision} on {where}. Lengths are log-normal: median {np.median(lengths):.0f}, "
        f'mean {np.mean(lengths):.0f}, longest {max(lengths)}. Operations are counted without padding; "of '
        'one product" is their rate divided by that of one large matrix product on the same device. '
        '"Total seconds" include the start: a digest of the weights, and their transfer to the device.\n\n'
        + markdown(pd.DataFrame(rows).T),
    )


if __name__ == "__main__":
    main()
