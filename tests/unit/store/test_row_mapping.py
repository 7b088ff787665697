"""The typed rows have the columns of their tables."""

import pytest

from bridge.store import row_mapping
from bridge.store.duplicates import NewReportRow
from bridge.store.schema import builds, deliveries, registrations, reports, runs

ONLY_SEARCHED_FOR = {"branch", "commit"}
"""Of a build: its run parameters have them too."""


@pytest.mark.parametrize(
    ("row", "table"),
    [
        (row_mapping.BuildRow, builds),
        (row_mapping.DeliveryRow, deliveries),
        (row_mapping.RegistrationRow, registrations),
        (row_mapping.RunRow, runs),
    ],
)
def test_a_row_has_all_columns_in_order(row, table):
    assert list(row._fields) == [column.name for column in table.c if column.name not in ONLY_SEARCHED_FOR]


def test_a_new_report_has_all_columns_but_its_id():
    assert list(NewReportRow._fields) == [column.name for column in reports.c if column.name != "id"]


def test_a_report_is_read_without_its_bytes():
    assert {"body", "blob"}.isdisjoint(row_mapping.ReportRow._fields)
