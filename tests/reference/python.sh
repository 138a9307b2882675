#!/bin/sh
# python.sh - runs a Python test with the first python3 that has what it needs; exit code 77 (skipped) when there is none.
# The second line of the file says what that is: "# needs: PIL numpy".
needs=$(sed -n '2s/^# needs: *//p' "$1" | tr ' ' ',')
for python in python3 /usr/bin/python3; do
    "$python" -c "${needs:+import $needs}" 2> /dev/null && exec "$python" -B "$1"
done
echo "skipped: no python3${needs:+ with $needs} here" >&2
exit 77
