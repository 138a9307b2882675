#!/bin/sh
# abi.sh CC SHARED HEADER.. - what programs that were built with the headers rely on, one fact a line: functions that the library
# exports, constants, sizes of structs, places and sizes of their fields. Compared with abi.txt by the test; to change that file:
#   sh tests/structure/abi.sh cc build/cpu/librvengine.so engine/rv*.h > tests/structure/abi.txt
set -eu
cc=$1 shared=$2
shift 2
set -- $(printf '%s\n' "$@" | LC_ALL=C sort)      # the same facts in the same order, however they were listed
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT

{
    for header in "$@"; do echo "#include \"$(realpath "$header")\""; done
    echo '#include <stdio.h>'
    echo 'int main(void) {'
    # The preprocessor drops comments and system headers stay out; then a declaration ends at ';' or ','.
    for header in "$@"; do "$cc" -E "$header"; done | awk '
        /^# / { ours = $3 ~ /\/rv[a-z]*\.h"$|^"rv[a-z]*\.h"$/; next }
        ours { text = text " " $0 }
        function constants(body,   n, i, names) {
            n = split(body, names, ",")
            for (i = 1; i <= n; i++) if (match(names[i], /RV_[A-Z0-9_]+/)) {
                name = substr(names[i], RSTART, RLENGTH)
                if (!told[name]++) printf "printf(\"constant %s %%lld\\n\", (long long)%s);\n", name, name
            }
        }
        # "const char *key, *title", "int32_t (*stop)(void *user)", "char name[64]"
        function fields(type, body,   n, i, k, parts, names, count) {
            n = split(body, parts, ";")
            for (i = 1; i <= n; i++) {
                if (parts[i] ~ /\(\*/) { sub(/\).*/, "", parts[i]); sub(/.*\(\*/, "", parts[i]) }
                count = split(parts[i], names, ",")
                for (k = 1; k <= count; k++) {
                    gsub(/\[[^]]*\]|[ \t]+$/, "", names[k])
                    if (!match(names[k], /[A-Za-z_][A-Za-z0-9_]*$/)) continue
                    name = substr(names[k], RSTART)
                    printf "printf(\"field %s.%s %%zu %%zu\\n\", offsetof(%s, %s), sizeof ((%s *)0)->%s);\n", type, name, type, name, type, name
                }
            }
        }
        END {
            while (match(text, /(enum|typedef struct rv_[a-z_]+) *\{[^{}]*\} *[a-z_]*;/)) {
                found = substr(text, RSTART, RLENGTH)
                text = substr(text, RSTART + RLENGTH)
                body = found
                sub(/^[^{]*\{/, "", body)
                sub(/\}[^}]*$/, "", body)
                if (found ~ /^enum/) { constants(body); continue }
                type = found
                sub(/.*\} */, "", type)
                sub(/;$/, "", type)
                if (told[type]++) continue
                printf "printf(\"struct %s %%zu\\n\", sizeof(%s));\n", type, type
                fields(type, body)
            }
        }'
    printf '%s\n' 'printf("constant RV_ABI %d\n", RV_ABI);' 'return 0; }'
} > "$folder/facts.c"
"$cc" -std=gnu11 -w "$folder/facts.c" -o "$folder/facts"
nm -D --defined-only "$shared" | awk '{ sub(/@.*/, "", $NF); print "function " $NF }' | LC_ALL=C sort
"$folder/facts"
