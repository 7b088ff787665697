#!/usr/bin/env bash
# @wdio/junit-reporter 9.32.0 with @wdio/reporter 9.32.0.
#
# The reporter gets the events that the runner emits for a suite "登录" with the passing tests "登录成功" and "登录失败",
# in the order and with the fields of a run.
#
# Expected: two test cases with the names of the two tests.
# Seen: two test cases with name="" in a suite with name="". The reporter splits each name at all that is not A to Z, a to
#       z, 0 to 9 or @ and joins the pieces, so two different tests become one for readers that compare names. Only the class
#       name and a property of the suite keep the characters. The option suiteNameFormat, although named after suites,
#       cures both: with /[^\p{L}\p{N}@]+/u the names are complete.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @wdio/junit-reporter@9.32.0 @wdio/reporter@9.32.0
cat > run.mjs <<'JS'
import assert from 'node:assert';
import JunitReporter from '@wdio/junit-reporter';

function namesIn(options) {
  let xml = '';
  const reporter = new JunitReporter({ stdout: true, writeStream: { write: (text) => { xml = text; } }, ...options });
  const suite = { uid: 's', title: '登录', fullTitle: '登录', file: 'a.e2e.js' };
  reporter.emit('runner:start', { capabilities: {}, specs: ['file:///a.e2e.js'], config: {}, isMultiremote: false });
  reporter.emit('suite:start', suite);
  for (const title of ['登录成功', '登录失败']) {
    const test = { uid: title, title, fullTitle: `登录 ${title}`, file: 'a.e2e.js' };
    reporter.emit('test:start', test);
    reporter.emit('test:pass', test);
  }
  reporter.emit('suite:end', suite);
  reporter.emit('runner:end', { failures: 0, retries: 0 });
  console.log(xml);
  assert.match(xml, /<property name="suiteName" value="登录"\/>/);
  return [...xml.matchAll(/<testcase [^>]*?\bname="([^"]*)"/g)].map((found) => found[1]);
}

assert.deepStrictEqual(namesIn({}), ['', ''], 'changed: the names are kept');
assert.deepStrictEqual(namesIn({ suiteNameFormat: /[^\p{L}\p{N}@]+/u }), ['登录成功', '登录失败']);
console.log('as described: Chinese names become empty');
JS
node run.mjs
