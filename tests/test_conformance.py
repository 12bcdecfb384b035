"""The matrix of docs/conformance.md is what the clients do. Each needs its own environment: slow, and from the network."""

from __future__ import annotations

from collections.abc import Iterator

import conformance
import pytest
from conformance import CLIENTS, PAGE, ROWS, Client, Facts, Servers

import mio
from mio.types import MissingError


def written() -> list[list[str]]:
    """The cells of the page's table, without the line below its head."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def test_the_page_tells_every_row_of_every_client_and_none_fails() -> None:
    head, *rows = written()
    assert [cell.split("`")[1] for cell in head[1:]] == [client.title for client in CLIENTS]
    assert [row[0] for row in rows] == [*ROWS]
    assert {cell for row in rows for cell in row[1:]} == {"yes", "dropped", "–"}


def test_a_matrix_has_a_line_for_every_row_and_a_dash_where_there_is_no_call() -> None:
    one, other = CLIENTS[:2]
    text = conformance.page({one: {"version": "3.1", "text": "yes"}, other: {"version": "2.0", "stream": "no: why"}})
    assert "| text | yes | – |\n| stream | – | no: why |\n" in text
    assert text.count("\n| ") == len(ROWS) + 2 and "`openai (Python)` 3.1" in text


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Servers, Facts]]:
    with conformance.servers(mio.load()) as live:
        yield live, conformance.facts(live)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("number", range(len(CLIENTS)), ids=[client.name for client in CLIENTS])
def test_a_client_does_what_the_page_says(live: tuple[Servers, Facts], number: int) -> None:
    client: Client = CLIENTS[number]
    try:
        conformance.installed(client)
    except MissingError as error:
        pytest.skip(f"{client.name} cannot be installed: {error}")
    found = conformance.column(client, *live)
    assert {row: found.get(row, "–") for row in ROWS} == {row: cells[number] for row, *cells in written()[1:]}
