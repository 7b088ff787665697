"""The demo's reports are valid JUnit."""

import pytest

from bridge.demo.builds import DemoCase, demo_builds, pytest_report, surefire_report
from bridge.domain.junit import validator

CASES = (
    DemoCase(name="passes <fast> & well", seconds=0.25),
    DemoCase(name="fails", seconds=0.5, failure='expected "<a>" & got nothing'),
    DemoCase(name="is skipped", seconds=0.0, skipped="not today"),
)


@pytest.mark.parametrize(
    "body",
    [surefire_report("com.example.OrderTest", CASES), pytest_report("tests.test_order", CASES)],
    ids=["surefire", "pytest"],
)
def test_validation_counts_what_was_written(body):
    verdict = validator.validate_bytes(body)

    assert isinstance(verdict, validator.Valid)
    counts = verdict.counts
    assert (counts.tests, counts.failures, counts.errors, counts.skipped) == (3, 1, 0, 1)
    assert counts.time_us == 750_000
    assert not verdict.notes


def test_a_surefire_report_is_written_in_the_encoding_that_it_declares():
    body = surefire_report("com.example.订单Test", [DemoCase(name="退款", seconds=0.1)], encoding="GBK")

    assert body.startswith(b'<?xml version="1.0" encoding="GBK"?>')
    assert "退款".encode("gbk") in body
    assert isinstance(validator.validate_bytes(body), validator.Valid)


def test_the_four_builds_are_what_the_demo_promises():
    green, red, nodes, gbk = demo_builds()

    assert failures(green) == 0
    assert sum(len(files) for files in green.uploads.values()) == 3
    assert failures(red) > 0
    assert sum(len(files) for files in nodes.uploads.values()) == 12
    assert len(nodes.uploads) == 3
    (body,) = gbk.uploads["default"].values()
    assert b'encoding="GBK"' in body
    with pytest.raises(UnicodeDecodeError):
        body.decode("utf-8")
    assert len({build.job_id for build in demo_builds()}) == 4


def failures(build):
    verdicts = [validator.validate_bytes(body) for files in build.uploads.values() for body in files.values()]
    assert all(isinstance(verdict, validator.Valid) for verdict in verdicts)
    return sum(verdict.counts.failures for verdict in verdicts)
