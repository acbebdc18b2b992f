"""The printer of tables."""

from __future__ import annotations

from math import inf, nan

import pytest

from vqvideo.evaluation.tables import cell, step_table, table


def test_a_table_is_markdown_with_names_to_the_left_and_figures_to_the_right() -> None:
    assert table(["step", "PSNR"], [["1", "30.25"], ["seventeen", "9.00"]]).splitlines() == [
        "| step      |  PSNR |",
        "| --------- | ----: |",
        "| 1         | 30.25 |",
        "| seventeen |  9.00 |",
    ]


def test_a_cell_cannot_break_the_table() -> None:
    assert table(["a|b"], [["two\nlines"]]).splitlines() == ["| a\\|b      |", "| --------- |", "| two lines |"]


def test_a_table_may_have_no_rows_but_no_row_of_another_length() -> None:
    assert table(["a", "b"], []).splitlines() == ["| a   |   b |", "| --- | --: |"]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        table(["a"], [["1", "2"]])


@pytest.mark.parametrize(("value", "text"), [(1.234, "1.23"), (0.0, "0.00"), (None, "-"), (nan, "-"), (inf, "-")])
def test_what_is_no_number_is_a_dash(value: float | None, text: str) -> None:
    assert cell(value, ".2f") == text


@pytest.mark.parametrize(
    ("last", "shown"), [(1, "1"), (3, "1 2 3"), (16, " ".join(map(str, range(1, 17)))), (20, "1 2 4 8 16 20")]
)
def test_a_long_horizon_shows_its_steps_in_powers_of_two_and_the_last_one(last: int, shown: str) -> None:
    lines = step_table({"a": (list(range(last)), ".0f"), "nothing": (None, ".0f")}).splitlines()
    assert lines[0].split("|")[1:-1] == [" step ", "   a "]
    assert [line.split()[1] for line in lines[2:]] == shown.split()
    assert lines[-1].split()[3] == str(last - 1)
