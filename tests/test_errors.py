"""The error classes: each is also a builtin kind, has a complete message, and can be pickled."""

import copy
import pickle

import numpy as np
import pytest

from cellweft import _errors, errors
from cellweft._errors import (
    CellweftError,
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    MemoryBudgetError,
    Message,
    MissingExtraError,
    MissingFileError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    Placeholder,
    ScaleError,
    ServiceError,
    SettingError,
    arg,
    array_of,
    check_choice,
    check_range,
    require,
)
from cellweft._text import near, shorten

BUILTIN = {
    InputError: (ValueError,),
    FormatError: (InputError, ValueError),
    ScaleError: (InputError, ValueError),
    GeneError: (InputError, ValueError, KeyError),
    KeyMissingError: (KeyError,),
    SettingError: (ValueError,),
    MissingFileError: (FileNotFoundError,),
    OutputExistsError: (FileExistsError,),
    OutputError: (OSError,),
    MemoryBudgetError: (MemoryError,),
    NotFittedError: (RuntimeError,),
    ServiceError: (ConnectionError,),
    MissingExtraError: (ImportError,),
}
each_kind = pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.__name__)


def made(kind: type[CellweftError]) -> CellweftError:
    return kind("k", expected="at most 10", got="50", fix="Choose a smaller k.")


@each_kind
class TestKinds:
    def test_it_is_also_its_builtin_kind(self, kind: type[CellweftError]) -> None:
        for builtin in (*BUILTIN[kind], CellweftError):
            with pytest.raises(builtin, match=r"^k: expected at most 10, got 50\. Choose a smaller k\.$"):
                raise made(kind)

    def test_its_text_is_the_message(self, kind: type[CellweftError]) -> None:
        # A KeyError would print its message in quotes, an OSError its number.
        assert str(made(kind)) == "k: expected at most 10, got 50. Choose a smaller k."

    @pytest.mark.parametrize("through", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
    def test_it_can_be_pickled(self, kind: type[CellweftError], through) -> None:
        again = through(made(kind))
        assert type(again) is kind
        assert vars(again) == vars(made(kind))

    def test_it_is_in_the_tree_of_the_docstring(self, kind: type[CellweftError]) -> None:
        assert f" {kind.__name__} " in (errors.__doc__ or "")


def test_every_error_of_the_module_is_in_the_table() -> None:
    kinds = {
        one for one in vars(_errors).values() if isinstance(one, type) and issubclass(one, CellweftError)
    }
    assert kinds == {*BUILTIN, CellweftError}
    assert errors.__all__ == sorted(one.__name__ for one in kinds)
    assert {getattr(errors, name) for name in errors.__all__} == kinds


class TestNear:
    @pytest.mark.parametrize(
        ("name", "known", "hint"),
        [
            ("gad1", ["Gad1", "Sst"], "Did you mean 'Gad1'?"),
            ("Gad", ["Gad1", "Gad2", "Sst"], "Did you mean 'Gad2' or 'Gad1'?"),
            ("zzz", ["b", "a"], "Known: 'a', 'b'."),
            ("zzz", list("abcdefg"), "Known: 'a', 'b', 'c', 'd', 'e' and 2 more."),
            ("zzz", [], "There are none."),
        ],
    )
    def test_hints(self, name: str, known: list[str], hint: str) -> None:
        assert sorted(near(name, known)) == sorted(hint)
        assert near(name, known).split("'")[0] == hint.split("'")[0]

    def test_names_that_differ_only_in_case_are_accepted(self) -> None:
        assert near("GAD1", ["Gad1", "gad1"]) == "Did you mean 'Gad1'?"


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "'a'"), (["a", "b", "c"], "'a', 'b' and 1 more"), (["a", "b"], "'a', 'b'")],
)
def test_shorten(names: list[str], text: str) -> None:
    assert shorten(names, most=2) == text


def test_check_choice() -> None:
    check_choice("by", "genes", ("genes", "cells"))
    with pytest.raises(
        SettingError, match=r"^by: expected one of 'genes', 'cells', got 'gene'\. Did you mean 'genes'"
    ):
        check_choice("by", "gene", ("genes", "cells"))


class TestCheckRange:
    @pytest.mark.parametrize("value", [0, 1, 0.5])
    def test_values_in_range_are_accepted(self, value: float) -> None:
        check_range("alpha", value, low=0, high=1)

    @pytest.mark.parametrize("value", [-1, 2, float("nan"), float("inf"), -float("inf"), "1", None, True])
    def test_values_out_of_range_are_refused(self, value: object) -> None:
        with pytest.raises(SettingError, match=rf"^alpha: expected a number from 0 to 1, got {value!r}\."):
            check_range("alpha", value, low=0, high=1)

    @pytest.mark.parametrize("value", [0, 1.0, float("inf"), False, "2"])
    def test_whole_numbers(self, value: object) -> None:
        with pytest.raises(SettingError, match=rf"^k: expected a whole number >= 1, got {value!r}\."):
            check_range("k", value, low=1, integer=True)

    def test_infinity_is_refused(self) -> None:
        with pytest.raises(SettingError, match=r"^weight: expected a number >= 0, got inf\."):
            check_range("weight", float("inf"), low=0)


class TestRequire:
    def test_an_installed_package_is_accepted(self) -> None:
        assert require("math", "maths").pi > 3

    def test_a_missing_package_says_how_to_install_it(self) -> None:
        with pytest.raises(
            MissingExtraError, match=r'^cellweft_none: .*No module named.*pip install "cellweft\[esm\]"'
        ):
            require("cellweft_none", "esm")


class TestMessages:
    def test_messages_are_text_in_python(self) -> None:
        message = "Raise " + arg("memory") + " or " + arg("settings", key="k") + "."
        assert message == "Raise memory= or settings['k']."
        assert isinstance(message, Message)
        assert arg("sc_layer", Placeholder("NAME")) == "sc_layer=NAME"

    def test_another_interface_shows_arguments_in_its_own_way(self) -> None:
        error = SettingError(
            arg("sc_layer", "raw"),
            expected="a layer",
            got="none",
            fix="Use " + arg("sc_layer", "counts") + ".",
        )
        shown = error.fields(lambda one: f"<{one.name} {one.value}>")
        assert shown == {
            "where": "<sc_layer raw>",
            "expected": "a layer",
            "got": "none",
            "fix": "Use <sc_layer counts>.",
        }
        assert str(error) == "sc_layer='raw': expected a layer, got none. Use sc_layer='counts'."

    @pytest.mark.parametrize(
        ("where", "argument"),
        [("memory", "memory"), (arg("labels", "a"), "labels"), ("sc (a.h5ad)", None), ("Imputer", None)],
    )
    def test_an_error_knows_its_argument(self, where: str, argument: str | None) -> None:
        assert SettingError(where, expected="a", got="b", fix="C.").argument == argument
        assert MissingExtraError("torch", expected="a", got="b", fix="C.").argument is None

    @pytest.mark.parametrize("through", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
    def test_messages_can_be_pickled(self, through) -> None:
        again = through(SettingError("k", expected="a", got="b", fix="Raise " + arg("k", 3) + "."))
        assert again.fields(lambda one: one.name)["fix"] == "Raise k."


def test_complex_numbers_never_lose_their_imaginary_part_silently() -> None:
    for values in (np.ones(2) * 1j, [1j, 2], np.ones((2, 2), dtype=complex)):
        with pytest.raises(InputError, match=r"places: expected an array of numbers, got .*complex numbers"):
            array_of("places", values, fix="Pass numbers.")
