#!/usr/bin/env bash
# cargo test, to the end also where a test fails.
#
#   tools/test.sh ARGUMENTS...           what `cargo test` takes, without `--locked`
#   AGAIN=n tools/test.sh ARGUMENTS...   up to n tests that fail are run once more, each by itself
#
# The second form is CI's. Hundreds of tests talk to real servers on a machine that does other things
# too; one of them losing such a race says nothing of the change. It is told as FLAKY all the same,
# with what it printed, and is a mistake in the test to be mended. What fails twice, or more than n
# tests, or a run that ends without saying which tests failed, is a failure.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly again=${AGAIN:-0}

if [ "$again" -eq 0 ]; then
    exec cargo test --locked --no-fail-fast "$@"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
[ "$status" -ne 0 ] || exit 0

# A line for each test that failed: the option that names its target, and its name. Of a target, the list
# behind the last `failures:` counts; what is before it is what the tests printed.
failed=$(awk '
    /^ +Running unittests src\/lib.rs/ { target = "--lib" }
    /^ +Running unittests src\/main.rs/ { target = "--bins" }
    /^ +Running tests\// { split($2, path, "[/.]"); target = "--test=" path[2] }
    /^ +Doc-tests / { target = "--doc" }
    /^failures:$/ { is_list = 1; list = ""; next }
    /^test result: / { if (is_list) printf "%s", list; is_list = 0 }
    is_list && /^    [a-z0-9_:]+$/ { list = list target " " $1 "\n" }
' "$log" | sort -u)
listed=$(grep -c . <<<"$failed" || true)
told=$(awk '/^test result: FAILED/ { for (i = 1; i < NF; i++) if ($(i + 1) == "failed;") n += $i } END { print n + 0 }' "$log")
targets=$(grep -c '^test result: FAILED' "$log" || true)
ended=$(awk '/^error: [0-9]+ targets? failed:$/ { is_list = 1 } is_list && /^    `[^`]+`$/ { n++ } END { print n + 0 }' "$log")

if [ "$listed" -eq 0 ] || [ "$listed" -ne "$told" ] || [ "$targets" -ne "$ended" ] || [ "$listed" -gt "$again" ]; then
    exit "$status"
fi

printf '\n== %s failed; once more, each by itself\n' "$listed"
while read -r target name; do
    cargo test --locked "$target" -- --exact "$name" </dev/null 2>&1 | tee "$log"
    grep -q '^test result: ok. 1 passed' "$log" || exit 1
done <<<"$failed"
printf '\nFLAKY, to be mended (what it printed is above): %s\n' $(awk '{ print $2 }' <<<"$failed")
