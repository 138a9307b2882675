#!/bin/sh
# manual.sh PROGRAM.. - each program's manual page: all that --help tells of every command is there, and man has nothing to complain of.
set -u
failed=0
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
page=$folder/page.1                      # mandoc reads the section from the name
for program in "$@"; do
    "$program" help man > "$page" || exit 1
    plain=$(sed 's/\\f[BIR]//g; s/\\-/-/g' "$page")
    commands=$("$program" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
    [ -n "$commands" ] || { echo "$program: no commands"; exit 1; }
    for command in $commands; do
        echo "$plain" | grep -qx "\.SS $command" || { echo "$program: $command is missing"; failed=1; }
        for option in $("$program" help "$command" | sed -n 's/^  \(-., \|    \)\(--[a-z0-9-]*\).*/\2/p'); do
            echo "$plain" | grep -Eq -e "^(-., )?$option( |\$)" || [ "$option" = --help ] || { echo "$program $command: $option is missing"; failed=1; }
        done
    done
    for section in NAME SYNOPSIS DESCRIPTION COMMANDS ENVIRONMENT 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
        grep -qx "\.SH $section" "$page" || { echo "$program: no section $section"; failed=1; }
    done
    if command -v man > /dev/null; then
        complaints=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l "$page" 2>&1 > /dev/null)
        [ -z "$complaints" ] || { echo "man: $complaints"; failed=1; }
    fi
    if command -v mandoc > /dev/null; then
        complaints=$(mandoc -Tlint -Wwarning "$page" 2>&1 | grep -v 'missing date')
        [ -z "$complaints" ] || { echo "mandoc: $complaints"; failed=1; }
    fi
done
exit $failed
