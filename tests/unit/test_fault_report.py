"""The page of the fault matrix tells each cell's outcome, and nothing better than it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.faults.cells import Cell, all_cells
from tests.acceptance.faults.report import BEGIN, BROKEN, END, Page, parse, render

STAGE = Cell("upload", "stage", "before", "killed")
PUT = Cell("upload", "put", "after", "RabbitMQ: cut")


def test_what_a_page_tells_is_read_again_as_it_was_written() -> None:
    outcomes = {cell: ["●", "○", "◐", BROKEN, "skipped"][number % 5] for number, cell in enumerate(all_cells())}
    assert parse(f"# Before\n{BEGIN}\n\n{render(outcomes)}\n{END}\n| step | after |\n") == outcomes


def test_broken_skipped_and_unplayed_cells_are_counted_and_the_broken_named() -> None:
    text = render({STAGE: BROKEN, PUT: "skipped"})
    unplayed = len(all_cells()) - 2
    assert f"0 kept the promise, 1 broke it, 1 were skipped, {unplayed} were not played." in text
    assert "- broken: `upload-stage:before-killed`" in text


@pytest.mark.parametrize(("merges", "kept"), [(True, {PUT: "●"}), (False, {})])
def test_a_run_of_some_cells_keeps_the_others_only_where_it_was_asked_for_some(
    tmp_path: Path, merges: bool, kept: dict[Cell, str]
) -> None:
    path = _page(tmp_path, {PUT: "●", STAGE: "●"})
    page = Page(path, merges=merges)
    page.pytest_runtest_logreport(_report(STAGE, "call", "failed"))
    page.pytest_runtest_logreport(_report(STAGE, "teardown", "passed"))
    page.pytest_sessionfinish()
    assert parse(path.read_text()) == {STAGE: BROKEN, **kept}
    assert path.read_text().startswith("head\n")
    assert path.read_text().endswith("tail\n")


def test_a_cell_that_leaves_processes_behind_is_broken_though_it_was_played_well(tmp_path: Path) -> None:
    path = _page(tmp_path, {})
    page = Page(path, merges=False)
    page.pytest_runtest_logreport(_report(STAGE, "call", "passed", "succeeded, 1 deaths"))
    page.pytest_runtest_logreport(_report(STAGE, "teardown", "failed"))
    page.pytest_sessionfinish()
    assert parse(path.read_text()) == {STAGE: BROKEN}


def test_a_run_without_a_cell_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    path = _page(tmp_path, {PUT: "●"})
    before = path.read_text()
    Page(path, merges=False).pytest_sessionfinish()
    assert path.read_text() == before


@pytest.mark.parametrize("text", [None, "no marks", f"{END}\n{BEGIN}\n"])
def test_a_page_without_the_place_is_refused_before_the_run(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "page.md"
    if text is not None:
        path.write_text(text)
    with pytest.raises(pytest.UsageError, match="it must be a file with the lines"):
        Page(path, merges=False)


def _page(folder: Path, outcomes: dict[Cell, str]) -> Path:
    path = folder / "page.md"
    path.write_text(f"head\n{BEGIN}\n\n{render(outcomes)}\n{END}\ntail\n")
    return path


def _report(cell: Cell, when: str, outcome: str, said: str = "") -> pytest.TestReport:
    properties = [("cell", [cell.flow, cell.step, cell.moment, cell.fault]), ("outcome", said)]
    return pytest.TestReport("node", ("", 0, ""), {}, outcome, None, when, user_properties=properties)  # type: ignore[arg-type]
