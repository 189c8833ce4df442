"""Rows of the materialization service: versions, and the names of tables and views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.oracle import MAIN

from .comparisons import (
    same_names,
    same_record,
    same_times,
    same_values,
)
from .facts import Facts
from .rows import Ask, Row, Theirs, ask
from .rows_client import numbers, pinned_or_not
from .rows_tables import materialize

if TYPE_CHECKING:
    from .peers import Peers

# -- versions and names ------------------------------------------------------------------------------------------------


def lists_of_versions(facts: Facts) -> list[Ask]:
    pins = [None, *(version.version for version in (*facts.valid, *facts.expired))]
    return [ask(pin=pin, **one) for pin in pins for one in ({}, {"expired": False}, {"expired": True})]


def of_tables(facts: Facts) -> list[Ask]:
    names = [*facts.world.tables, "nope", "", "nucleus_detection_v", "Nucleus_Detection_v0"]
    return [
        *(ask(table_name=name) for name in names),
        *(ask(table_name=MAIN, version=version.version) for version in (*facts.valid, *facts.expired)),
        ask(table_name=MAIN, version=99_999),
        ask(pin=facts.valid[0].version, table_name=MAIN),
    ]


def of_views(facts: Facts) -> list[Ask]:
    names = [*facts.world.views, "nope", MAIN, "nucleus"]
    return [
        *(ask(view_name=name) for name in names),
        *(ask(view_name=names[0], version=version.version) for version in (*facts.valid, *facts.expired)),
        ask(view_name=names[0], version=99_999),
        ask(pin=facts.valid[0].version, view_name=names[0]),
        *(ask(view_name=name, version=facts.newest) for name in names),
    ]


def by_version(name: str, parameter: str = "materialization_version") -> Theirs:
    """The method of that name of caveclient, which spells versions otherwise."""

    def theirs(peers: Peers, asked: Ask) -> Any:
        renamed = {parameter if key == "version" else key: value for key, value in asked.arguments.items()}
        return getattr(materialize(peers, asked), name)(**renamed)

    return theirs


ROWS: list[Row] = [
    Row("materialize.get_versions", lists_of_versions, same=same_names),
    Row("materialize.get_versions_metadata", lists_of_versions, same=same_record),
    Row("materialize.get_version_metadata", numbers, same=same_record),
    Row("materialize.get_timestamp", numbers, same=same_times),
    Row("materialize.most_recent_version", pinned_or_not),
    Row("materialize.get_tables", numbers, same=same_names),
    Row("materialize.get_tables_metadata", numbers, same=same_record),
    Row("materialize.get_table_metadata", of_tables, same=same_record),
    Row("materialize.get_annotation_count", of_tables),
    Row("materialize.get_views", numbers, same=same_names),
    Row("materialize.get_view_metadata", of_views, by_version("get_view_metadata"), same=same_record),
    Row("materialize.get_view_schema", of_views, by_version("get_view_schema")),
    Row("materialize.get_view_schemas", numbers, by_version("get_view_schemas")),
    Row(
        "materialize.get_unique_string_values",
        lambda facts: [ask(table_name=name) for name in (*facts.world.tables, "nope", "", "a b", "x", "1", "-")],
        lambda peers, asked: materialize(peers, asked).get_unique_string_values(asked["table_name"]),
        same=same_values,
    ),
]
