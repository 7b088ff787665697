#!/usr/bin/env bash
# ansible-core 2.19.14 with its callback plugin junit (ansible.builtin) and junit-xml 1.9.
#
# A playbook has a block whose task fails, and a rescue section that handles it. Ansible counts the task as "rescued",
# not as failed, and exits with 0.
#
# Expected: no failure in the JUnit file, or a skipped case: the play succeeded. A task with ignore_errors, whose failure
#           does not count either, is written as passed.
# Seen: <testsuites errors="1">, and for the rescued task an <error> whose text is "(traceback missing)" three times. So
#       each green run of a playbook that uses rescue is red in a dashboard.
#
# It fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ansible-core==2.19.14 junit-xml==1.9
cat > play.yml <<'YAML'
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - block:
        - name: handled
          ansible.builtin.command: "false"
      rescue:
        - name: handles
          ansible.builtin.command: "true"
    - name: ignored
      ansible.builtin.command: "false"
      ignore_errors: true
YAML
export ANSIBLE_CALLBACKS_ENABLED=junit JUNIT_OUTPUT_DIR="$folder/out" JUNIT_HIDE_TASK_ARGUMENTS=true LC_ALL=C.UTF-8
venv/bin/ansible-playbook play.yml > log 2>&1
grep -E 'failed=0 .*rescued=1 .*ignored=1' log
grep -E '<testsuites|<testcase|<error|<failure|<skipped|traceback' out/*.xml
venv/bin/python - out/*.xml <<'PY'
import sys
import xml.etree.ElementTree as ET

root = ET.parse(sys.argv[1]).getroot()
children = {case.get("name").rpartition(": ")[2]: [child.tag for child in case] for case in root.iter("testcase")}
assert root.get("errors") == "1", "changed: the totals"
assert "error" in children["handled"], "changed: the rescued task is not an error"
assert children["ignored"] == ["system-out"] == children["handles"], "changed: the others"
assert "(traceback missing)" in root.find(".//error").text
print("as described: a rescued task is an error in the file of a play that succeeded")
PY
