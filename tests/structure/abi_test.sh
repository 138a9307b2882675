#!/bin/sh
# abi_test.sh CC SHARED HEADER.. - the library is as abi.txt says, and abi.sh would notice if it were not.
set -eu
here=$(dirname "$0") cc=$1 shared=$2
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
sh "$here/abi.sh" "$@" > "$folder/now"
if ! diff -u "$here/abi.txt" "$folder/now"; then
    echo "The library is not what tests/structure/abi.txt says. A function, a constant or a field at the end of a struct that is new: change that"
    echo "file in the same commit. Anything else breaks programs that are built: raise RV_ABI too (the soname follows)."
    exit 1
fi

# No field was overlooked: between two of them, and behind the last, there is no more than alignment.
awk '$1 == "struct" { if (name && size - end >= 8) { print name ": a gap at the end"; bad = 1 } name = $2; size = $3; end = 0; structs++ }
     $1 == "field" { if ($3 - end >= 8 || $3 < end) { print $2 ": a gap before it"; bad = 1 } end = $3 + $4 }
     END { if (structs < 38) bad = 1; exit bad }' "$folder/now" || { echo "abi.sh overlooks something"; exit 1; }

# A field in the middle, a number that moves, a function that is gone.
shift 2
cp "$@" "$folder"
sed -i 's/^    uint32_t *max_tiles;/    int32_t in_the_middle, too;\n&/; s/RV_ERR_IO  /RV_ERR_OI  /' "$folder/rvengine.h"
sh "$here/abi.sh" "$cc" "$shared" "$folder"/rv*.h > "$folder/changed"
for fact in 'struct rv_image 48' 'field rv_image.max_tiles 40 4' 'constant RV_ERR_IO -3'; do
    grep -qx -e "$fact" "$folder/now" || { echo "\"$fact\" is no fact any more: choose another one here"; exit 1; }
    ! grep -qx -e "$fact" "$folder/changed" || { echo "a change of \"$fact\" is not noticed"; exit 1; }
done
