#!/usr/bin/env bash
# meson 1.12.1 with ninja 1.13.2 (wheels), its file meson-logs/testlog.junit.xml.
#
# Two test programs speak TAP: one bails out after its first test ("Bail out! no database"), the other plans two tests and
# runs one. Meson reports both as ERROR, counts "Fail: 2", and exits with 1.
#
# Expected: an <error> for each program, as the file has for time-outs since 1.7.
# Seen: <testsuites tests="2" errors="0" failures="0">: one passed case for each line "ok 1". What went wrong stands only in
#       <system-out> of the suite. So the file of the failed run is all green.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check meson==1.12.1 ninja==1.13.2
PATH="$folder/venv/bin:$PATH"
cat > meson.build <<'MESON'
project('demo')
sh = find_program('sh')
test('bails', sh, args: ['-c', 'echo 1..2; echo ok 1; echo "Bail out! no database"'], protocol: 'tap')
test('short', sh, args: ['-c', 'echo 1..2; echo ok 1'], protocol: 'tap')
MESON
meson setup build > /dev/null
status=0
meson test -C build > log 2>&1 || status=$?
grep -E 'ERROR|^Fail' log
cat build/meson-logs/testlog.junit.xml
test "$status" = 1 || { echo "changed: meson exits with $status"; exit 1; }
grep -qE '^Fail: +2' log
grep -q '<testsuites tests="2" errors="0" failures="0">' build/meson-logs/testlog.junit.xml || { echo "changed"; exit 1; }
if grep -q '<error\|<failure\|<skipped' build/meson-logs/testlog.junit.xml; then echo "changed: the file shows it"; exit 1; fi
echo
echo "as described: TAP that bails out, or runs too few tests, is green in the JUnit file of the failed run"
