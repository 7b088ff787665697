#!/usr/bin/env bash
# Node.js 22.23.3 (the npm package node 22.23.3), its test runner.
#
# Two files with one passing test each. In the first the `after` hook of a describe throws, in the second a top-level one.
#
# Expected: both runs exit with 1, and both JUnit files have a <failure>.
# Seen: the first run exits with 0, although the reporter "spec" prints "failing tests" with the error, and counts "fail 0".
#       Its JUnit file has failures="0" and no <failure>. (20.20.2, 24.21.0 and 26.10.0 exit with 1; the file is the same.)
#       The second run exits with 1. Its file holds the failure in an element <undefined name="root">, which no schema of
#       JUnit has; a reader that expects suites and cases drops it.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund node@22.23.3
node=$folder/node_modules/.bin/node
cat > group.test.cjs <<'JS'
const { after, describe, it } = require('node:test');
describe('shop', () => {
  after(() => { throw new Error('the server does not stop'); });
  it('sells', () => {});
});
JS
cat > top.test.cjs <<'JS'
const { after, test } = require('node:test');
after(() => { throw new Error('the server does not stop'); });
test('sells', () => {});
JS
for name in group top; do
  status=0
  "$node" --test --test-reporter=junit --test-reporter-destination=$name.xml \
    --test-reporter=spec --test-reporter-destination=$name.log $name.test.cjs || status=$?
  echo "$name.test.cjs: exit status $status"
  grep -v '^ *at ' $name.xml
  echo "$status" > $name.status
done
grep -q 'failing tests' group.log
grep -q 'does not stop' group.log
grep -qx 0 group.status || { echo "changed: the exit status of the group"; exit 1; }
if grep -q '<failure\|<error\|does not stop' group.xml; then echo "changed: the file shows the hook"; exit 1; fi
grep -qx 1 top.status
grep -q '<undefined name="root">' top.xml || { echo "changed: no element <undefined>"; exit 1; }
echo "as described: a failed after hook of a group is green everywhere, a top-level one is in an element <undefined>"
