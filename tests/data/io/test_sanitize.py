"""Tables become storable without a surprise, and the ones that came stay as they were."""

import logging

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import InputError
from cellweft.data.io.sanitize import storable


def test_strings_that_repeat_or_are_missing_become_categories() -> None:
    frame = pd.DataFrame({"a": ["x", None, "x"], "b": ["x", "y", "z"], "c": [1, 2, 3]}, index=[3, 4, 5])
    before = frame.copy(deep=True)
    result = storable(frame, "obs")
    pd.testing.assert_frame_equal(frame, before)
    assert isinstance(result["a"].dtype, pd.CategoricalDtype)
    assert result["a"].cat.codes.tolist() == [0, -1, 0]
    assert result["b"].dtype == object
    assert result["c"].dtype == np.int64
    assert result.index.tolist() == ["3", "4", "5"]


def test_a_slash_in_a_column_name_is_replaced_and_said(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"T/NK": [1.0]})
    with caplog.at_level(logging.WARNING, "cellweft"):
        assert list(storable(frame, "obs")) == ["T_NK"]
    assert "obs: column 'T/NK' is written as 'T_NK'" in caplog.text


def test_names_that_become_the_same_are_refused() -> None:
    with pytest.raises(InputError, match="obs: expected distinct column names, got 'T_NK' twice"):
        storable(pd.DataFrame({"T/NK": [1.0], "T_NK": [2.0]}), "obs")


def test_mixed_objects_are_refused_with_the_next_step() -> None:
    with pytest.raises(
        InputError, match=r"obs\['odd'\]: expected one type .* got mixed.*obs\['odd'\]\.astype\(str\)"
    ):
        storable(pd.DataFrame({"odd": [1, "a", None]}), "obs")


def test_a_column_of_nothing_is_stored() -> None:
    assert storable(pd.DataFrame({"a": pd.Series([None, None], dtype=object)}), "obs")["a"].isna().all()
