#!/usr/bin/env bash
# vitest 4.1.12, its JUnit reporter.
#
# A test passes, and a promise that it started rejects without a handler. vitest then reports "Unhandled Errors", states
# that this "might cause false positive tests", and exits with 1.
#
# Expected: the JUnit file shows the error, in errors= of the root or in a case (vitest 5.1.2 does).
# Seen: <testsuites tests="1" failures="0" errors="0"> with one passed case: the report of the
#       failed run is all green.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund vitest@4.1.12
cat > a.test.mjs <<'JS'
import { test } from 'vitest';
test('works', () => { Promise.reject(new Error('without a handler')); });
JS
status=0
npx vitest run --reporter=default --reporter=junit --outputFile.junit=out.xml > log 2>&1 || status=$?
grep -q 'Unhandled' log
cat out.xml
test "$status" = 1 || { echo "changed: vitest exits with $status"; exit 1; }
grep -q '<testsuites name="vitest tests" tests="1" failures="0" errors="0"' out.xml || { echo "changed: the totals"; exit 1; }
if grep -q 'without a handler\|<failure\|<error' out.xml; then echo "changed: the file shows the error"; exit 1; fi
echo "as described: the file of a run that failed for an unhandled error is all green"
