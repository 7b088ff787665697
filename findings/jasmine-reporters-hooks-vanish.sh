#!/usr/bin/env bash
# jasmine 7.0.0 with jasmine-reporters 2.5.2 (its JUnitXmlReporter).
#
# One spec passes, and the afterAll of its suite throws, for example because a server cannot be stopped.
#
# Expected: the JUnit file shows the failure: as a case, as an <error> of the suite, or in the totals.
# Seen: jasmine reports the failure and exits with 3, but the file has failures="0" errors="0" and one passed case.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund jasmine@7.0.0 jasmine-reporters@2.5.2
mkdir spec
cat > spec/a.spec.cjs <<'JS'
const { JUnitXmlReporter } = require('jasmine-reporters');
jasmine.getEnv().addReporter(new JUnitXmlReporter({ savePath: 'out' }));
describe('shop', () => {
  afterAll(() => { throw new Error('the server does not stop'); });
  it('sells', () => { expect(1).toBe(1); });
});
JS
status=0
npx jasmine 'spec/*.spec.cjs' > log 2>&1 || status=$?
grep -q 'the server does not stop' log
cat out/*.xml
test "$status" = 3 || { echo "changed: jasmine exits with $status"; exit 1; }
if grep -q 'the server does not stop\|<failure\|<error' out/*.xml; then echo "changed: the file shows it"; exit 1; fi
grep -q '<testsuites disabled="0" errors="0" failures="0" tests="1"' out/*.xml
echo "as described: a failed afterAll is nowhere in the JUnit file"
