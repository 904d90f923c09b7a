"""A report of odd results gives a page, or an error that names the entry: records, columns and names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellweft
from cellweft.errors import CellweftError, InputError
from cellweft.evaluate.imputation import protocol_text
from cellweft.reports.inputs import given_of
from cellweft.reports.provenance import commands, input_blocks, input_cautions, made_facts, run_blocks
from cellweft.reports.standards import tissue_width

ODD: dict[str, Any] = {
    "None": None,
    "three": 3,
    "NaN": np.nan,
    "True": True,
    "text": "odd",
    "bytes": b"\xff",
    "list": [1, "a"],
    "empty": {},
    "deep": {"a": {"b": [1]}},
    "array": np.arange(6.0).reshape(2, 3),
    "texts": np.array(["a", "b"], dtype=object),
}


def places_in(record: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to every value of a record."""
    if isinstance(record, dict):
        for key, value in record.items():
            yield (*at, key)
            yield from places_in(value, (*at, key))


def with_value(record: dict[str, Any], at: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a copy of a record with another value at one entry; the value `dict.pop` removes the entry."""
    if len(at) > 1:
        return record | {at[0]: with_value(record[at[0]], at[1:], value)}
    if value is dict.pop:
        return {key: one for key, one in record.items() if key != at[0]}
    return record | {at[0]: value}


def fault_of(*results: Any) -> str | None:
    """Return the fault of the parts of a report that read records; None for results and clear errors."""
    try:
        given = given_of(results)
        for part in (commands, input_blocks, input_cautions, made_facts, run_blocks, tissue_width):
            part(given)
        for one in given.scores:
            assert isinstance(one.by + protocol_text(one.record), str)
        for result in given.results:
            assert np.isfinite(float(result.record.get("interval", 0.9)))
    except CellweftError as error:
        return None if "expected" in str(error) and ", got " in str(error) else f"says too little: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def faults_of_records(whole: dict[str, Any], put: Any, result: Any) -> list[str]:
    """Try every odd value in every entry of a record, and also remove every entry."""
    faults = []
    for at in places_in(whole):
        for what, value in {**ODD, "nothing": dict.pop}.items():
            put(with_value(whole, at, value))
            fault = fault_of(result)
            faults += [f"{'.'.join(at)} = {what}: {fault}"] if fault else []
    return faults


@pytest.mark.parametrize("kind", ["imputed", "placed"])
@pytest.mark.filterwarnings("ignore")
def test_every_value_of_a_record_may_be_odd(kind: str, world: Any) -> None:
    result = getattr(world, kind).copy()
    faults = faults_of_records(
        dict(result.uns["cellweft"]), lambda record: result.uns.__setitem__("cellweft", record), result
    )
    assert not faults, "\n".join(faults)


@pytest.mark.filterwarnings("ignore")
def test_every_value_in_the_record_of_scores_may_be_odd(world: Any) -> None:
    table = cellweft.evaluate_imputation(world.pair, methods=["mean"], folds=2, cluster=False, progress=False)
    faults = faults_of_records(
        dict(table.attrs["cellweft"]), lambda record: table.attrs.__setitem__("cellweft", record), table
    )
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("column", ["measured", "reliability", "reliability_lower", "reliable"])
def test_text_in_a_column_of_genes_is_refused(column: str, world: Any, tmp_path: Path) -> None:
    result = world.imputed.copy()
    result.var[column] = ["high"] * result.n_vars
    with pytest.raises(
        InputError, match=rf"var\['{column}'\]: expected (numbers|True and False), got .*high"
    ):
        cellweft.report(tmp_path / "a.html", result, progress=False)


def test_text_in_a_column_of_cells_is_refused(world: Any, tmp_path: Path) -> None:
    result = world.placed.copy()
    result.obs["cellweft_confidence"] = "sure"
    with pytest.raises(InputError, match=r"obs\['cellweft_confidence'\]: expected numbers, got .*sure"):
        cellweft.report(tmp_path / "a.html", result, progress=False)


def test_genes_of_one_name_are_refused(world: Any, tmp_path: Path) -> None:
    result = world.imputed.copy()
    result.var_names = ["Same", "Same", *result.var_names[2:]]
    with pytest.raises(InputError, match=r"var_names: expected every gene once, got .* of 'Same'"):
        cellweft.report(tmp_path / "a.html", result, progress=False)


def test_other_entries_of_uns_do_not_matter(world: Any, tmp_path: Path) -> None:
    result = world.imputed.copy()
    result.uns |= {"odd": [{1: object()}], "x_colors": 3, "cell_type_colors": np.array([["a"]]), "": None}
    path = cellweft.report(tmp_path / "a.html", result, progress=False)
    assert "imputed" in path.read_text(encoding="utf-8")


def test_the_error_says_what_to_do(world: Any, tmp_path: Path) -> None:
    result = world.imputed.copy()
    result.uns["cellweft"] = result.uns["cellweft"] | {"duration": {"fit": "long"}}
    message = r"\['duration'\]\['fit'\]: expected a number, .*got str\. .*take the whole record out"
    with pytest.raises(InputError, match=message):
        cellweft.report(tmp_path / "a.html", result, progress=False)
