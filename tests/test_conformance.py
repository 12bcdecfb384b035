"""The matrix of docs/conformance.md is what clients do. Each has an environment of its own: slow, from the network."""

from __future__ import annotations

from collections.abc import Iterator

import conformance
import pytest
from conformance import CLIENTS, PAGE, ROWS, Client, Facts, Servers

import mio
from mio.types import MissingError


def test_the_page_tells_what_every_client_does_and_none_fails() -> None:
    text = PAGE.read_text(encoding="utf-8")
    columns = conformance.read(text)
    assert conformance.page(columns) == text
    for client in CLIENTS:
        column = columns[client.name]
        assert column.pop("version")[0].isdigit()
        assert set(column) <= {*ROWS} and set(column.values()) <= {"yes", "dropped"}
        assert all(column[row] == "yes" for row in ("text", "stream", "image in", "audio in", "errors"))


def test_a_page_is_read_as_it_was_written() -> None:
    columns = {client.name: {"version": f"{n}.1", ROWS[n]: "yes"} for n, client in enumerate(CLIENTS)}
    assert conformance.read(conformance.page(columns)) == columns


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
    written = conformance.read(PAGE.read_text(encoding="utf-8"))[client.name]
    assert found | {"version": ""} == written | {"version": ""}  # a later version may do the same
