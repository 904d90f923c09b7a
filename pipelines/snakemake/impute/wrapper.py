"""Snakemake wrapper of ``cellweft impute``."""
# ruff: noqa: F821 - Snakemake puts `snakemake` here

__author__ = "The cellweft developers"
__copyright__ = "Copyright 2026, the cellweft developers"
__license__ = "BSD-3-Clause"

import shlex

from snakemake.shell import shell


def option(name: str, given: object) -> list[str]:
    """Return the option once for each path, number or text that is given."""
    several = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return [word for one in several for word in (name, str(one))]


output = snakemake.output.get("imputed", snakemake.output[0])
memory = snakemake.resources.get("mem_mb")
options = [
    *option("--output", output),
    *option("--memory", None if memory is None else f"{memory}MB"),
    *option("--genes", snakemake.input.get("genes")),
    *option("--embedding", snakemake.input.get("embedding")),
    *option("--gene-sets", snakemake.input.get("gene_sets")),
    *option("--edges", snakemake.input.get("edges")),
    *option("--save-model", snakemake.output.get("model")),
]
# A killed job leaves its finished parts next to the output. Snakemake removes the outputs of such a job, but
# not these parts, and the next attempt resumes from them. If there are none, it starts from the beginning.
if output.endswith(".zarr"):
    options.append("--resume")

arguments = shlex.join([snakemake.input.sc, snakemake.input.st, *options])
extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=True, stderr=True)

shell("OMP_NUM_THREADS={snakemake.threads} cellweft impute {arguments} {extra} {log}")
