"""Inputs and runs: the findings of the check and the contents of the records, as text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cellweft._text import shown_unit
from cellweft.data.io.keys import SPILLOVER
from cellweft.nn.config import AttentionSettings, StemSettings, StImputeSettings
from cellweft.reports.document import Block, Facts, Form, Name, Number, Part, Table, Text, joined, text
from cellweft.reports.formatting import PRESETS, SCALES
from cellweft.reports.inputs import CellTypes, Given, Result, Scores
from cellweft.tl._spillover import LARGE_SPILLOVER

_MOST_NAMES = 12
_OF_IMPUTER = ("imputed", "labels")  # kinds of results of an Imputer


def findings_of(given: Given) -> tuple[dict[str, Any], str]:
    """Return the findings about the inputs, and their source; empty if unknown."""
    if given.pair is not None:
        return given.pair.findings, "check of the inputs"
    for scores in given.scores:
        if scores.record.get("pair"):
            return scores.record["pair"], f"record of {scores.name}"
    return {}, ""


def input_blocks(given: Given) -> tuple[Block, ...]:
    """Return the section on the inputs."""
    findings, source = findings_of(given)
    blocks: list[Block] = (
        [_sides(findings, source), _together(findings, source)] if findings else [_NOT_GIVEN]
    )
    blocks.append(_results(given))
    if given.pair is not None and given.pair.cautions:
        blocks.append(text("The check found cautions. They are listed below with all findings.", tone="note"))
    elif given.pair is not None:
        blocks.append(text("The check found no cautions."))
    return tuple(blocks)


_NOT_GIVEN = text(
    "The report was made without the inputs. Pass the two inputs to include what the check found.",
    tone="note",
)


def _sides(findings: Mapping[str, Any], source: str) -> Table:
    rows: list[tuple[Part | None, ...]] = []
    sides = ("reference", "spatial")

    def add(head: str, key: str, form: Form, *, always: bool = True) -> None:
        values = [findings[side].get(key) for side in sides]
        if always or any(values):
            rows.append((head, *(_number(value, form, f"{source}: {key}") for value in values)))

    rows.append(("file", *(Name(Path(str(findings[side]["source"])).name) for side in sides)))
    if any(findings[side].get("instrument") for side in sides):
        rows.append(("read as", *(str(findings[side].get("instrument") or "") for side in sides)))
    add("cells", "cells", "count")
    if any(findings[side].get("cells_left_out") for side in sides):
        rows.append(
            ("left out", *("; ".join(map(str, findings[side].get("cells_left_out", []))) for side in sides))
        )
    add("genes", "genes", "count")
    scales = [str(findings[side].get("stored_scale", findings[side]["scale"])) for side in sides]
    rows.append(("values", *(SCALES.get(scale, "unknown") for scale in scales)))
    if any(findings[side].get("layer") for side in sides):
        rows.append(("layer", *(Name(str(findings[side].get("layer") or "X")) for side in sides)))
    add("zeros", "sparsity", "share")
    if all(findings[side]["scale"] == "raw" for side in sides):
        add("counts in a typical cell", "median_total", "value")
    add("cells without counts", "empty_cells", "count", always=False)
    add("genes without counts", "empty_genes", "count", always=False)
    rows.append(("cell types from", *(_name(findings[side].get("labels")) for side in sides)))
    kinds = [findings[side].get("label_counts", {}) for side in sides]
    if any(kinds):
        rows.append(
            (
                "cell types",
                *(_number(len(counts) or None, "count", f"{source}: label_counts") for counts in kinds),
            )
        )
    return Table(
        caption=("The two inputs",), heads=("", "reference", "spatial data"), rows=tuple(rows), mixed=True
    )


def _together(findings: Mapping[str, Any], source: str) -> Facts:
    def number(value: Any, key: str, form: Form = "count") -> Number:
        return Number(float(value), form, f"{source}: {key}")

    only, place = findings["genes_only_spatial"], findings["coordinates"]
    shared, panel = (
        number(findings["shared_genes"], "shared_genes"),
        number(findings["spatial"]["genes"], "genes"),
    )
    rows: list[tuple[str, tuple[Part, ...]]] = [
        ("shared genes", (shared, " of ", panel, " on the panel")),
        ("to impute", (number(findings["genes_to_impute"], "genes_to_impute"), " only in the reference")),
    ]
    if only:
        rows.append(("not usable", (number(len(only), "genes_only_spatial"), ": ", *_names(only))))
    if findings["gene_bridge"]:
        rows.append(("matched by", (Name(str(findings["gene_bridge"])),)))
    if place["dimensions"] and place["extent"]:
        extent = [number(length, "coordinates, extent", "value") for length in place["extent"]]
        size = joined(extent, between=" × ", last=" × ")
        unit = shown_unit(place.get("unit", ""))
        ending = f" {unit}" if unit else " in the unit of the file"
        rows.append(("coordinates", (Name(str(place["found"])), ", ", *size, ending)))
    else:
        rows.append(("coordinates", ("none",)))
    if place["spacing"] is not None:
        nearest = number(place["spacing"], "coordinates, spacing", "value")
        ending = ", the median distance to the nearest neighbour"
        rows.append(("spacing", (nearest, f" {shown_unit(place.get('unit', ''))}".rstrip() + ending)))
    slices = findings["slices"]["cells"]
    if slices:
        rows.append(("slices", (number(len(slices), "slices"), ": ", *_names(list(slices)))))
    return Facts(title="Both inputs", rows=tuple(rows))


def _names(names: list[str]) -> tuple[Part, ...]:
    more = len(names) - _MOST_NAMES
    listed = joined([Name(str(name)) for name in names[:_MOST_NAMES]], last=", ")
    return (*listed, " and others") if more > 0 else listed


def _results(given: Given) -> Facts:
    said = {"imputed": "imputed genes", "labels": "cell types", "placed": "placed cells", "spots": "spots"}
    rows: list[tuple[str, tuple[Part, ...]]] = []
    for result in given.results:
        items = " spots" if result.kind == "spots" else " cells"
        parts: tuple[Part, ...] = (Name(result.name), ": ", result.number(result.n_cells, "cells"), items)
        if isinstance(result, Result) and result.genes:
            parts += (" × ", result.number(len(result.genes), "genes"), " genes")
        rows.append((said[result.kind], parts))
    for scores in given.scores:
        n = scores.number(len(scores.table), "rows")
        rows.append(("scores", (Name(scores.name), ": ", n, " rows")))
    return Facts(title="Contents of this report", rows=tuple(rows))


def run_blocks(given: Given) -> tuple[Block, ...]:
    """Return the section on how the results were made."""
    blocks: list[Block] = []
    for result in given.results:
        if given.placed is not None and result.record == given.placed.record | {"kind": "spots"}:
            continue
        if not result.record:
            blocks.append(text(Name(result.name), " has no record.", tone="note"))
            continue
        blocks += [_how(result), _settings(result)]
    if versions := _versions(given):
        blocks.append(versions)
    return tuple(blocks)


def _how(result: Result | CellTypes) -> Facts:
    record = result.record
    preset = str(record.get("preset", ""))
    said = PRESETS["imputed" if result.kind in _OF_IMPUTER else "placed"].get(preset)
    rows: list[tuple[str, tuple[Part, ...]]] = [("method", (said,) if said else (_name(preset),))]
    rows += [(key, (_name(record.get(key)),)) for key in ("seed", "device")]
    rows += [(side, _input_parts(result, input_record, side)) for side, input_record in _inputs(record)]
    if record.get("scale"):
        rows.append(("scale", (Name(str(record["scale"])),)))
    if record.get("measured") == "blend":
        rows.append(("panel genes", ("measurement and prediction together",)))
    if record.get("interval"):
        level = result.number(float(record["interval"]), "record, interval", "share")
        rows.append(("intervals", (level, " of the measurements should lie inside")))
    if record.get("embedding") not in (None, "none", ""):
        rows.append(("embedding", (Name(str(record["embedding"])),)))
    if record.get("network"):
        rows.append(("gene network", joined([Name(str(network)) for network in record["network"]])))
    rows += [
        (head, (_name(record.get(key)),)) for head, key in (("made", "date"), ("command", "command_line"))
    ]
    for head, key in (("training time", "fit"), ("run time", "run")):
        if seconds := record.get("duration", {}).get(key):
            took = result.number(float(seconds), f"record, duration, {key}", "value")
            rows.append((head, (took, " seconds")))
    return Facts(title=result.name, rows=tuple(rows))


def _inputs(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    inputs = record.get("inputs", {})
    return [(side, inputs.get(side, {})) for side in ("reference", "spatial")]


def _input_parts(result: Result | CellTypes, input_record: Mapping[str, Any], side: str) -> tuple[Part, ...]:
    """Return the record of an input: path, size, and digest of its values."""
    if not input_record:
        return ("not recorded",)
    cells, genes = (
        result.number(float(input_record[key]), f"record, {side}, {key}") for key in ("cells", "genes")
    )
    digest = Name(str(input_record["digest"]))
    return (Name(str(input_record["path"])), ": ", cells, " cells × ", genes, " genes, digest ", digest)


def changed_settings(result: Result | CellTypes) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ from the preset, with the value of the preset.

    Parameters
    ----------
    result
        A result with a record.
    """
    settings, preset = result.record.get("settings", {}), result.record.get("preset")
    usual: AttentionSettings | StImputeSettings | StemSettings
    if result.kind not in _OF_IMPUTER:
        usual = StemSettings.from_preset("stem" if preset == "stem" else "auto")
    elif preset == "stimpute":
        usual = StImputeSettings.published(result.n_cells)
    else:
        usual = AttentionSettings()
    defaults = {name: "none" if value is None else value for name, value in asdict(usual).items()}
    return {
        name: (value, defaults[name])
        for name, value in settings.items()
        if name in defaults and defaults[name] != value
    }


def _settings(result: Result | CellTypes) -> Block:
    changed = changed_settings(result)
    if not changed:
        return text("All settings of ", Name(result.name), " are the defaults.")
    return Table(
        caption=("Settings of ", Name(result.name), " that differ from the default"),
        heads=("setting", "here", "by default"),
        rows=tuple((Name(name), _name(value), _name(usual)) for name, (value, usual) in changed.items()),
    )


def _versions(given: Given) -> Block | None:
    kinds: list[tuple[list[str], dict[str, str]]] = []
    everything: list[Result | CellTypes | Scores] = [*given.results, *given.scores]
    for item in everything:
        if versions := item.record.get("versions"):
            same = next((names for names, recorded in kinds if recorded == versions), None)
            if same is None:
                kinds.append(([item.name], versions))
            else:
                same.append(item.name)
    if not kinds:
        return None
    packages = list(dict.fromkeys(key for _, versions in kinds for key in versions))
    heads: tuple[Part, ...] = ("package", *(Name(", ".join(names)) for names, _ in kinds))
    if len(kinds) == 1:
        heads = ("package", "version")
    return Table(
        caption=("Versions",),
        heads=heads,
        rows=tuple((Name(key), *(_name(recorded.get(key)) for _, recorded in kinds)) for key in packages),
        note=() if len(kinds) == 1 else ("These results were made with different versions.",),
    )


def commands(given: Given) -> str:
    """Return the commands that made the results, or that would reproduce them according to the records."""
    lines: list[str] = []
    if given.imputed is not None and given.imputed.record:
        lines.append(_command("impute", given.imputed))
    if given.labels is not None and given.labels.record.get("inputs"):
        lines.append(_command("annotate", given.labels, *_label_words(given.labels)))
    if given.placed is not None and given.placed.record:
        more = [] if given.spots is None else ["--spots", given.spots.name]
        lines.append(_command("place", given.placed, *more))
    lines += [
        _evaluate_line(scores) for scores in given.scores if scores.record.keys() & {"command_line", "pair"}
    ]
    return "\n".join(dict.fromkeys(lines))


def made_facts(given: Given) -> tuple[Facts, ...]:
    """Return when each result was made, from which inputs, and the duration, if recorded."""
    rows: list[tuple[str, tuple[Part, ...]]] = []
    everything: list[Result | CellTypes | Scores] = [*given.results, *given.scores]
    for item in everything:
        parts: list[Part] = [Name(item.name), ": ", _name(item.record.get("date"))]
        paths = [input_record["path"] for _, input_record in _inputs(item.record) if input_record.get("path")]
        if paths:
            parts += [", from ", *joined([Name(str(path)) for path in paths])]
        seconds = sum(float(value) for value in item.record.get("duration", {}).values())
        if seconds:
            parts += [", in ", item.number(seconds, "record, duration, all", "value"), " seconds"]
        rows.append(("scores" if isinstance(item, Scores) else "result", tuple(parts)))
    return (Facts(title="Dates, inputs and run times", rows=tuple(rows)),) if rows else ()


def _evaluate_line(scores: Scores) -> str:
    """Return the command that made a table of scores, or that would reproduce it according to its record."""
    record = scores.record
    if record.get("command_line"):
        return str(record["command_line"])
    parameters, findings = record.get("parameters", {}), record.get("pair") or {}
    paths = [str(findings.get(side, {}).get("source") or "?") for side in ("reference", "spatial")]
    words = ["cellweft", "evaluate", *paths, "-o", "scores.csv"]
    by = "place" if scores.by == "place" else parameters.get("by")
    words += ["--by", str(by)] if by else []
    words += ["--methods", ",".join(scores.methods)]
    words += ["--scale", "counts"] if parameters.get("scale") == "counts" else []
    if column := findings.get("reference", {}).get("batch"):
        words += ["--reference-batch", str(column)]
    if parameters.get("leave_out_batch"):
        words.append("--leave-out-batch")
    if seeds := record.get("seeds"):
        words += ["--seeds", ",".join(map(str, seeds))]
    return shlex.join(words)


def _label_words(labels: CellTypes) -> list[str]:
    """Return the options for the labels; none if they were passed as values."""
    columns = [str(name) for name in labels.record["labels"]]
    given_as_values = columns == ["labels"]
    return [] if given_as_values else ["--columns", ",".join(columns)]


def _command(name: str, result: Result | CellTypes, *more: str) -> str:
    record = result.record
    if record.get("command_line"):
        return str(record["command_line"])
    inputs = dict(_inputs(record))
    paths = (str(input_record.get("path") or "?") for input_record in inputs.values())
    words = ["cellweft", name, *paths, "-o", result.name, *more]
    for option, side, key in (
        ("--sc-layer", "reference", "layer"),
        ("--st-layer", "spatial", "layer"),
        ("--size-factor", "reference", "size_factor"),
        ("--st-size-factor", "spatial", "size_factor"),
        ("--reference-batch", "reference", "batch"),
    ):
        value = inputs[side].get(key)
        if value not in (None, "", "X"):
            words += [option, str(value)]
    if record.get("preset") not in (None, "auto"):
        words += ["--preset", str(record["preset"])]
    for setting, (own_value, _) in changed_settings(result).items():
        words += ["--set", f"{setting}={'None' if own_value == 'none' else own_value}"]
    for option, value in (
        ("--scale", "counts" if str(record.get("scale")).startswith("counts") else None),
        ("--measured", record.get("measured")),
        ("--interval", record.get("interval")),
        ("--sparse", record.get("sparse")),
    ):
        if value not in (None, ""):
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    words += ["--seed", str(record.get("seed", 0)), "--device", str(record.get("device", "auto"))]
    return shlex.join(words)


def _number(value: Any, form: Form, source: str) -> Number | None:
    return None if value is None else Number(float(value), form, source)


def _name(value: Any) -> Part:
    """Return a value of a record as stored there."""
    if value is None or value == "":
        return "not recorded"
    return Name(f"{value:g}" if isinstance(value, float) else str(value))


def input_cautions(given: Given) -> list[Text]:
    """Return the cautions of the check, and inconsistencies between the parts of the report."""
    said = [] if given.pair is None else [text(Name(one), tone="caution") for one in given.pair.cautions]
    findings, source = findings_of(given)
    for one in given.results:
        side = "reference" if one.kind == "placed" else "spatial"
        if findings and findings[side]["cells"] != one.n_cells:
            other = " has a different number of cells than the inputs of the "
            same = ": make sure that both come from the same data."
            said.append(text(Name(one.name), other, Name(source), same, tone="caution"))
    return said


def spillover_cautions(given: Given) -> list[Text]:
    """Return the share of counts that spilled over from neighbours, if a result contains it."""
    result = given.imputed
    column = None if result is None else result.column(SPILLOVER)
    if result is None or column is None:
        return []
    shares = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(shares).any():
        return []
    mean = float(np.nanmean(shares))
    number = result.number(mean, f"obs, {SPILLOVER}, mean", "share")
    said: tuple[Part, ...] = (
        "On average, ",
        number,
        " of a cell's counts are explained better by its neighbours than by the reference (spill-over).",
    )
    if mean >= LARGE_SPILLOVER:
        said += (
            " Look at the cells with the highest shares before you interpret markers in unexpected cells.",
        )
    return [text(*said, tone="caution" if mean >= LARGE_SPILLOVER else "note")]
