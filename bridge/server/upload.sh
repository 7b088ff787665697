#!/bin/sh
# Uploads JUnit reports to the bridge, like `bridge upload`, with curl 7.29 or later, in any POSIX shell.
#
# Usage: sh upload.sh [OPTION]... [PATTERN]...
#   PATTERN           files, folders, patterns with ** (in quotes), !patterns to exclude; without any, the usual places
#   --url URL         the gateway; default: BRIDGE_URL
#   --token-file FILE the caller's token; default: BRIDGE_TOKEN
#   --job ID          the build task; default: JOB_ID
#   --build NO        its number; default: INCREASENUM
#   --node ID, --branch NAME, --commit SHA, --project ID, --job-name NAME
#                     default: NODE_ID, codeBranch, COMMIT_ID, PROJECT_ID, JOB_NAME
#   --complete        the build has ended: finalize its run soon
#   --marker FILE     leave out files that are older than this one
#   --time-budget S   seconds for all attempts; default: 300
#   --dry-run         list the files, and send nothing
#   --never-fail      exit with 0 whatever happens, but wrong options
# Exits with 0 if all files were sent, 1 if the gateway rejected something, 2 for wrong usage, 3 if it was away.

if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
set -fu # without set -e: each failure is handled where it occurs

url=${BRIDGE_URL:-} token=${BRIDGE_TOKEN:-} token_file='' marker='' budget=300
job=${JOB_ID:-} build=${INCREASENUM:-} node=${NODE_ID:-}
branch=${codeBranch:-} commit=${COMMIT_ID:-} project=${PROJECT_ID:-} job_name=${JOB_NAME:-}
complete='' dry_run='' never_fail=''
# Of the trace that the build belongs to; curl would read a quote or a backslash as its own.
traceparent=${TRACEPARENT:-} tracestate=${TRACESTATE:-}
case $traceparent in *[!0-9a-f-]*) traceparent='' ;; esac
case $tracestate in *[!0-9A-Za-z_,=@/:.+*~-]*) tracestate='' ;; esac
if [ -z "$traceparent" ]; then tracestate=''; fi
files_at_once=500
newline='
'

say() { printf '%s\n' "$*" >&2; }
usage() {
  say "$1"
  exit 2
}
finish() {
  if [ -n "$never_fail" ]; then exit 0; fi
  exit "$1"
}

patterns='' exclusions=''
while [ $# -gt 0 ]; do
  case $1 in
  --url | --token-file | --job | --build | --node | --branch | --commit | --project | --job-name | --marker | --time-budget)
    if [ $# -lt 2 ]; then usage "$1 needs a value."; fi
    case $1 in
    --url) url=$2 ;;
    --token-file) token_file=$2 ;;
    --job) job=$2 ;;
    --build) build=$2 ;;
    --node) node=$2 ;;
    --branch) branch=$2 ;;
    --commit) commit=$2 ;;
    --project) project=$2 ;;
    --job-name) job_name=$2 ;;
    --marker) marker=$2 ;;
    --time-budget) budget=${2%s} ;;
    esac
    shift
    ;;
  --complete) complete=true ;;
  --dry-run) dry_run=true ;;
  --never-fail) never_fail=true ;;
  -h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  -*) usage "$1 is not an option. Run with --help for all." ;;
  !?*) exclusions=$exclusions${1#!}$newline ;;
  *) patterns=$patterns$1$newline ;;
  esac
  shift
done

case $budget in '' | *[!0-9]*) usage "--time-budget: $budget is not a number of seconds." ;; esac
if [ -n "$token_file" ]; then token=$(cat "$token_file") || exit 2; fi
if [ -n "$marker" ] && [ ! -e "$marker" ]; then usage "$marker does not exist. Create it when the build begins."; fi
if [ -z "$dry_run" ]; then
  case $url in
  http://*@* | https://*@*) usage "BRIDGE_URL must not contain a user. Set BRIDGE_TOKEN." ;;
  http://?* | https://?*) url=${url%/} ;;
  *) usage "The address of the gateway is missing. Set BRIDGE_URL, such as https://bridge.example.com." ;;
  esac
fi
if [ -z "$job" ]; then usage "The build task is missing. Set JOB_ID, the 32 characters at the end of its page's address."; fi
if [ -z "$build" ]; then usage "The number of the build is missing. Set INCREASENUM."; fi

folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
umask 077

# -- the files -----------------------------------------------------------------------------------------------------

# List regular files below $1 that match the other arguments, which are tests of find.
search() {
  start=$1
  shift
  if [ -n "$marker" ]; then set -- "$@" -newer "$marker"; fi
  # A name that begins with a dash would be an option.
  case $start in /* | ./* | ../* | .) ;; *) start=./$start ;; esac
  find -L "$start" -type f "$@" 2>/dev/null
}

in_usual_places() {
  search . ! -path '*/node_modules/*' ! -path '*/site-packages/*' ! -path '*/vendor/*' ! -path '*/venv/*' \
    ! -path '*/.git/*' ! -path '*/.venv/*' ! -path '*/.tox/*' ! -path '*/.cache/*' ! -name 'TESTS-TestSuites.xml' \( \
    -path '*/target/surefire-reports/TEST-*.xml' -o -path '*/target/failsafe-reports/TEST-*.xml' \
    -o -path '*/target/test-reports/*.xml' -o -path '*/target/nextest/*/junit.xml' \
    -o -path '*/build/test-results/*TEST-*.xml' -o -path '*/build/outputs/androidTest-results/*TEST-*.xml' \
    -o -path '*/bazel-testlogs/*/test.xml' -o -path '*/Testing/*.xml' -o -path '*/meson-logs/*.junit.xml' \
    -o -path '*/.vitest/junit/output.xml' -o -path '*/playwright-report/*.xml' -o -path '*/TestResults/*.xml' \
    -o -path '*/test-output/testng-junit.xml' -o -path '*/job-results/latest/results.xml' \
    -o -path '*/ct_run.*/junit_report.xml' -o -name xunit.xml -o -name nose2-junit.xml -o -name nosetests.xml \
    -o -name rspec.xml -o -name report.xml -o -name pytest.xml -o -name test-results.xml -o -name test_detail.xml \
    -o -name '*junit*.xml' -o -name 'TEST-*.xml' -o -name 'TESTS-*.xml' -o -path '*/test-reports/*.xml' \
    -o -path '*/test-results/*.xml' -o -path '*/test_results/*.xml' -o -path '*/junit-reports/*.xml' \
    -o -path '*/reports/*.xml' \)
}

# List the files that one pattern stands for.
matching() {
  if [ -d "$1" ]; then
    search "${1%/}" -name '*.xml'
    return
  fi
  case $1 in
  *\*\**)
    base=${1%%\*\**} below=${1#*\*\*}
    base=${base%/} below=${below#/}
    if [ -z "$base" ]; then case $1 in /*) base=/ ;; *) base=. ;; esac fi
    case ${below##*/} in '' | '**') below='*.xml' ;; esac
    case $base in
    *[*?[]*) # wildcards before the first **
      set +f
      IFS=
      for start in $base; do search "$start" -name "${below##*/}" -path "*/$(printf '%s' "$below" | sed 's/\*\*\//*/g')"; done
      unset IFS
      set -f
      ;;
    *) search "$base" -name "${below##*/}" -path "*/$(printf '%s' "$below" | sed 's/\*\*\//*/g')" ;;
    esac
    ;;
  *[*?[]*)
    if [ -f "$1" ]; then
      search "$1"
      return
    fi
    set +f
    IFS=
    for found in $1; do
      if [ -d "$found" ]; then search "$found" -name '*.xml'; elif [ -f "$found" ]; then search "$found"; fi
    done
    unset IFS
    set -f
    ;;
  *) search "$1" ;;
  esac
}

# Read files, and write those that no exclusion matches, each once.
without_excluded() {
  while IFS= read -r file; do
    file=${file#./}
    file=${file#"$PWD"/}
    others=$exclusions
    while [ -n "$others" ]; do
      pattern=${others%%"$newline"*}
      others=${others#*"$newline"}
      pattern=${pattern#./}
      # A * here matches slashes, too.
      case $pattern in
      */*)
        # shellcheck disable=SC2254 # it is a pattern
        case $file in $pattern | ${pattern#\*\*/} | $pattern/*) continue 2 ;; esac
        ;;
      *)
        # shellcheck disable=SC2254
        case /$file/ in */$pattern/*) continue 2 ;; esac
        ;;
      esac
    done
    printf '%s\n' "$file"
  done | awk '!seen[$0]++'
}

list=$folder/list
if [ -z "$patterns" ]; then
  in_usual_places | sort | without_excluded >"$list"
else
  waiting=$patterns
  while [ -n "$waiting" ]; do
    one=${waiting%%"$newline"*}
    waiting=${waiting#*"$newline"}
    matching "$one" >"$folder/found"
    if [ ! -s "$folder/found" ]; then say "$one: no file matches. Check that the tests ran, and where they write to."; fi
    sort "$folder/found"
  done | without_excluded >"$list"
fi
count=$(($(wc -l <"$list")))
say "$count files for build $build of job $job."
if [ -n "$dry_run" ]; then
  cat "$list"
  if [ "$count" -eq 0 ]; then finish 1; fi
  finish 0
fi

# -- sending -------------------------------------------------------------------------------------------------------

encoded() { # for a query
  printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g'
}

query="job_id=$(encoded "$job")&build_no=$(encoded "$build")&detail=files"
for pair in "node_id=$node" "branch=$branch" "commit=$commit" "project_id=$project" "job_name=$job_name"; do
  case ${pair#*=} in
  '') ;;
  *) query="$query&${pair%%=*}=$(encoded "${pair#*=}")" ;;
  esac
done

ends_at=$(($(date +%s) + budget))
result=0

# Send the files listed in $1, with $2 added to the query, until the gateway answers or the time is over.
send() {
  {
    # In a file, because other users see the arguments of a command.
    if [ -n "$token" ]; then printf 'header = "X-Auth-Token: %s"\n' "$token"; fi
    if [ -n "$traceparent" ]; then printf 'header = "traceparent: %s"\n' "$traceparent"; fi
    if [ -n "$tracestate" ]; then printf 'header = "tracestate: %s"\n' "$tracestate"; fi
    if [ -s "$1" ]; then
      # Within quotes, curl reads a backslash as an escape, once in the file and once in the form.
      # A path from the root names its file only: folders of this machine mean nothing to others.
      sed -e 's/[\"]/\\&/g' \
        -e 's|^\(/.*/\)\([^/]*\)$|files=@"\1\2";filename="\2"|' -e '/^files=@"/!s/.*/files=@"&";filename="&"/' \
        -e 's/[\"]/\\&/g' -e 's/.*/form = "&"/' "$1"
    else
      printf 'data = ""\n'
    fi
  } >"$folder/config"
  delay=1
  : >"$folder/headers"
  while :; do
    left=$((ends_at - $(date +%s)))
    if [ "$left" -lt 1 ]; then left=1; fi
    status=$(curl -sS --connect-timeout 10 --max-time "$left" -K "$folder/config" -H 'Accept: text/plain' -H 'Expect:' \
      -D "$folder/headers" -o "$folder/answer" -w '%{http_code}' \
      "$url/v1/report/junit/report/upload?$query$2" 2>"$folder/error")
    case $status in
    200)
      if grep -q '^success: ' "$folder/answer"; then
        cat "$folder/answer"
        return 0
      fi
      reason='the answer is not a gateway'\''s'
      ;;
    408 | 425 | 429 | 5??) reason="it answered $status, $(tail -n 1 "$folder/answer" 2>/dev/null | cut -c 1-300)" ;;
    000 | '') reason=$(head -n 1 "$folder/error") ;;
    *)
      if grep -q '^fail ' "$folder/answer" 2>/dev/null; then cat "$folder/answer"; else say "The server answered $status, and not as a gateway. Check BRIDGE_URL."; fi
      return 1
      ;;
    esac
    wait=$(tr '[:upper:]' '[:lower:]' <"$folder/headers" | sed -n 's/^retry-after: *\([0-9]\{1,6\}\).*/\1/p' | tail -n 1)
    : >"$folder/headers"
    if [ "${wait:-0}" -lt "$delay" ]; then wait=$delay; fi
    if [ $(($(date +%s) + wait)) -ge "$ends_at" ]; then
      say "The gateway is away: $reason. The reports were not sent."
      return 3
    fi
    say "The gateway cannot take the reports yet: $reason. The next attempt is in $wait s."
    sleep "$wait"
    delay=$((delay * 2))
    if [ "$delay" -gt 30 ]; then delay=30; fi
  done
}

more=''
if [ "$count" -le "$files_at_once" ] && [ -n "$complete" ]; then more='&complete=true'; fi
from=1
while :; do
  sed -n "$from,$((from + files_at_once - 1))p" "$list" >"$folder/part"
  if [ ! -s "$folder/part" ] && [ "$from" -gt 1 ]; then break; fi
  send "$folder/part" "$more"
  code=$?
  if [ "$code" -gt "$result" ]; then result=$code; fi
  from=$((from + files_at_once))
done
if [ -n "$complete" ] && [ -z "$more" ] && [ "$result" -lt 3 ]; then
  : >"$folder/part"
  send "$folder/part" '&complete=true'
  code=$?
  if [ "$code" -gt "$result" ]; then result=$code; fi
fi
finish "$result"
