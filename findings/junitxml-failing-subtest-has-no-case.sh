#!/usr/bin/env bash
# junitxml 0.7 (JUnitXmlResult), on Python 3.11 or later.
#
# A unittest test has three subtests, of which one fails. The result object of junitxml writes the report.
#
# Expected: a case with a <failure>, for the subtest or for its test.
# Seen: <testsuite failures="1" tests="2"> with one case, the other test, which passed. The failing test is nowhere: with
#       subtests unittest calls addSubTest and not addFailure, and no addSuccess, and junitxml inherits an addSubTest that
#       only counts. Readers that count cases, as most do, see a green report; only those that read the totals see more.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check junitxml==0.7
cat > run.py <<'PY'
import io
import unittest
import xml.etree.ElementTree as ET

from junitxml import JUnitXmlResult


class Rows(unittest.TestCase):
    def test_other(self):
        pass

    def test_rows(self):
        for row in range(3):
            with self.subTest(row=row):
                self.assertNotEqual(row, 1)


out = io.StringIO()
result = JUnitXmlResult(out)
result.startTestRun()
unittest.defaultTestLoader.loadTestsFromTestCase(Rows).run(result)
result.stopTestRun()
print(out.getvalue())
root = ET.fromstring(out.getvalue())
assert not result.wasSuccessful()
assert (root.get("tests"), root.get("failures")) == ("2", "1"), "changed: the totals"
assert [case.get("name") for case in root.iter("testcase")] == ["test_other"], "changed: the test has a case"
assert root.find(".//failure") is None
print("as described: a test with a failing subtest is not in the report")
PY
venv/bin/python run.py
