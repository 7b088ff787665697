#!/usr/bin/env bash
# CMake and CTest 4.4.5 (the wheel cmake 4.4.5; 3.25.1 does the same).
#
# A project has a test whose program was never built, and a test whose fixture failed. Both fail the run: ctest lists them
# under "The following tests FAILED", with "(Not Run)". The JUnit file is written with --output-junit.
#
# Expected: a <failure> or <error> for the test whose program is missing, since ctest counts it as failed.
# Seen: <skipped message="Unable to find executable"/>, and <skipped message="Fixture dependency failed"/>. If the missing
#       program is the only fault, then the file of the failed run has failures="0": a dashboard that reads JUnit shows a
#       test that was skipped on purpose.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cmake==4.4.5
cat > CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.18)
project(demo NONE)
enable_testing()
add_test(NAME works COMMAND ${CMAKE_COMMAND} -E true)
add_test(NAME never_built COMMAND ${CMAKE_BINARY_DIR}/never_built)
CMAKE
PATH="$folder/venv/bin:$PATH"
cmake -S . -B build > /dev/null
status=0
ctest --test-dir build --output-junit "$folder/out.xml" > log 2>&1 || status=$?
grep -A1 "The following tests FAILED" log
cat out.xml
test "$status" = 8 || { echo "changed: ctest exits with $status"; exit 1; }
grep -q '2 - never_built (Not Run)' log
tr -d '\n\t' < out.xml > flat
grep -q 'tests="2"failures="0"disabled="0"skipped="1"' flat || { echo "changed: the totals"; exit 1; }
grep -q 'name="never_built"[^>]*><skipped message="Unable to find executable"/>' flat || { echo "changed"; exit 1; }
echo "as described: a run that failed for a missing program has no failure in its JUnit file"
