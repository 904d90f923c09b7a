"""Snakemake wrapper of ``cellweft check``."""
# ruff: noqa: F821 - Snakemake puts `snakemake` here

__author__ = "The cellweft developers"
__copyright__ = "Copyright 2026, the cellweft developers"
__license__ = "BSD-3-Clause"

from snakemake.shell import shell

extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)

shell(
    "OMP_NUM_THREADS={snakemake.threads} cellweft check {snakemake.input.sc:q} {snakemake.input.st:q}"
    " --json {extra} > {snakemake.output[0]:q} {log}"
)
