"""Snakemake wrapper of ``cellweft place``."""
# ruff: noqa: F821 - Snakemake puts `snakemake` here

__author__ = "The cellweft developers"
__copyright__ = "Copyright 2026, the cellweft developers"
__license__ = "BSD-3-Clause"

import shlex

from snakemake.shell import shell

memory = snakemake.resources.get("mem_mb")
options = {
    "--output": snakemake.output.get("placed", snakemake.output[0]),
    "--spots": snakemake.output.get("spots"),
    "--genes": snakemake.input.get("genes"),
    "--memory": None if memory is None else f"{memory}MB",
    "--save-model": snakemake.output.get("model"),
}
words = [word for name, value in options.items() if value is not None for word in (name, str(value))]

arguments = shlex.join([snakemake.input.sc, snakemake.input.st, *words])
extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=True, stderr=True)

shell("OMP_NUM_THREADS={snakemake.threads} cellweft place {arguments} {extra} {log}")
