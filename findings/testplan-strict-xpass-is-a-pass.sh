#!/usr/bin/env bash
# testplan 25.8.0.
#
# A suite has a testcase marked @xfail(strict=True) that passes. Testplan calls that "xpass-strict" and fails the run.
# The plan writes JUnit files with xml_dir.
#
# Expected: the testcase has a <failure>, as pytest writes for a strict xfail that passes.
# Seen: exit status 1 and "Xpass_Strict" for testcase, suite and plan, but in the JUnit file two testcases without any
#       child and failures="0" errors="0". So a CI that reads the file sees a green run that failed, and nothing of it
#       names the testcase.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check testplan==25.8.0
cat > plan.py <<'PY'
import sys

from testplan import test_plan
from testplan.testing.multitest import MultiTest, testcase, testsuite, xfail


@testsuite
class Suite:
    @testcase
    def works(self, env, result):
        result.true(True)

    @xfail(reason="a known bug", strict=True)
    @testcase
    def known(self, env, result):
        result.true(True)


@test_plan(name="plan", xml_dir="xml")
def main(plan):
    plan.add(MultiTest(name="multi", suites=[Suite()]))


if __name__ == "__main__":
    sys.exit(main().exit_code)
PY
status=0
venv/bin/python plan.py > log 2>&1 || status=$?
grep -q "Xpass_Strict" log
cat xml/*.xml
test "$status" = 1 || { echo "changed: the run passes"; exit 1; }
if grep -qE '<(failure|error|skipped)' xml/*.xml; then echo "changed: the file shows it"; exit 1; fi
grep -q 'name="known"' xml/*.xml
echo "as described: a run that failed for a strict unexpected pass is all green in the JUnit file"
