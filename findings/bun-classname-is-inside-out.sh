#!/usr/bin/env bash
# bun 1.4.5 (the npm package), its JUnit reporter.
#
# A test is in the group "inner" in the group "outer" in the group "shop".
#
# Expected: classname="shop > outer > inner", in the order in which bun itself prints the test on the console.
# Seen: classname="inner > outer > shop", the innermost group first. The <testsuite> elements around it are nested in the
#       right order. A dashboard that sorts or folds tests by class name puts the tests of one file far apart, and groups
#       tests of different files that share the name of an inner group.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund bun@1.4.5
cat > a.test.js <<'JS'
import { describe, test } from 'bun:test';
describe('shop', () => describe('outer', () => describe('inner', () => test('sells', () => {}))));
JS
NO_COLOR=1 npx bun test --reporter=junit --reporter-outfile=out.xml > log 2>&1
cat log out.xml
grep -q 'shop > outer > inner > sells' log || { echo "changed: the console"; exit 1; }
grep -q 'classname="inner &gt; outer &gt; shop"' out.xml || { echo "changed: the class name"; exit 1; }
tr -d '\n' < out.xml | grep -qE '<testsuite name="shop".*<testsuite name="outer".*<testsuite name="inner"'
echo "as described: class names read from the inside out"
