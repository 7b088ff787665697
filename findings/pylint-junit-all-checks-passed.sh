#!/usr/bin/env bash
# pylint 4.1.4 with pylint-junit 0.3.5.
#
# A module of one line, "import os", has two findings, so pylint exits with 20.
#
# Expected: the suite of the module has the two findings as failures, and no case that passed.
# Seen: it has both, and a third case, passed, whose output is "All checks passed for: module.py". Another suite, "Command
#       line or configuration file", has a passed case "All checks passed for: None". The three cases of the module are
#       named module:0:0, module:1:0 and module:1:0, so two findings on a line are one test for readers that go by names.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pylint==4.1.4 pylint-junit==0.3.5
echo "import os" > module.py
status=0
venv/bin/pylint --load-plugins=pylint_junit --output-format=pylint_junit.JUnitReporter module.py > out.xml || status=$?
cat out.xml
test "$status" = 20 || { echo "changed: pylint exits with $status"; exit 1; }
venv/bin/python - <<'PY'
import xml.etree.ElementTree as ET

suites = {suite.get("name"): suite for suite in ET.parse("out.xml").getroot().iter("testsuite")}
assert sorted(suites) == ["Command line or configuration file", "module"], f"changed: {sorted(suites)}"
cases = [(case.get("name"), case.find("failure") is None, case.findtext("system-out")) for case in suites["module"]]
passed = [(name, out) for name, green, out in cases if green]
assert passed == [("module:0:0", "All checks passed for: module.py")], f"changed: {passed}"
assert [name for name, green, _ in cases if not green] == ["module:1:0", "module:1:0"], "changed: the names"
print("as described: a case states that all checks passed, beside two findings of the same module")
PY
