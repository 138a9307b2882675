#!/bin/sh
# keep.sh NVCC ARGUMENT.. - a compiler launcher: compiles as told, and keeps what the compiler says about each kernel
# in OBJECT.facts/: ptxas.txt (registers, stack, spills, shared memory) and the PTX of each architecture.
object="" last=""
for argument in "$@"; do
    [ "$last" = -o ] && object=$argument
    last=$argument
done
case $object in *.o) ;; *) exec "$@" ;; esac
facts=$object.facts
rm -rf "$facts"
mkdir -p "$facts"
"$@" -Xptxas -v --keep --keep-dir "$facts" 2> "$facts/ptxas.txt"
code=$?
grep -vE '^ptxas info|bytes stack frame|^$' "$facts/ptxas.txt" >&2      # what is left are warnings and errors
find "$facts" -type f ! -name '*.ptx' ! -name ptxas.txt -delete
exit $code
