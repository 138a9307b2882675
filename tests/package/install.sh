#!/bin/sh
# install.sh - installs into a scratch prefix and uses what is there as a stranger would. From the environment:
#   CMAKE BUILD SOURCE SCRATCH CC CXX, LIBDIR (lib/x86_64-linux-gnu)
set -eu
. "$(dirname "$0")/place.sh"
prefix=$SCRATCH/prefix
"$CMAKE" --install "$BUILD" --prefix "$SCRATCH/first" --strip > "$SCRATCH/install.log"
mv "$SCRATCH/first" "$prefix"          # the tree may be moved
cd "$SCRATCH"
export PKG_CONFIG_PATH="$prefix/$LIBDIR/pkgconfig"
abi=$(sed -n 's/^#define RV_ABI //p' "$SOURCE/engine/rvengine.h")

# ---- what is there ----
for file in bin/rvengine bin/rvbench $LIBDIR/librvengine.so $LIBDIR/librvengine.a share/man/man1/rvengine.1.gz share/man/man1/rvbench.1.gz \
            share/bash-completion/completions/rvengine share/zsh/site-functions/_rvengine; do
    [ -s "$prefix/$file" ] || fail "$file is not installed"
done
[ "$(readelf -d "$prefix/$LIBDIR/librvengine.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" = "librvengine.so.$abi" ] || fail "the soname is not librvengine.so.$abi"
readelf -d "$prefix/bin/rvengine" "$prefix/$LIBDIR/librvengine.so" | grep -E 'R(UN)?PATH' && fail "a run path is left"
for file in bin/rvengine bin/rvbench $LIBDIR/librvengine.so $LIBDIR/librvengine.a $LIBDIR/pkgconfig/rvengine.pc; do
    ! grep -aqF -e "$BUILD" -e "$SOURCE" "$prefix/$file" || fail "$file knows where it was built"
done
cmp "$prefix/share/bash-completion/completions/rvengine" - << EOF || fail "the installed completion is stale"
$("$prefix/bin/rvengine" help bash)
EOF

# ---- every header by itself ----
for header in "$prefix"/include/rvengine/*.h; do
    name=rvengine/$(basename "$header")
    for times in 1 2; do
        printf '#include <%s>\n' "$name"
        [ $times = 2 ] || continue
        echo 'int main(void) { return rv_abi() == RV_ABI ? 0 : 1; }'
    done > alone.c
    cp alone.c alone.cpp
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wstrict-prototypes -Werror -fsyntax-only $(pkg-config --cflags rvengine) alone.c || fail "$name is no C11"
    "$CXX" -std=c++17 -Wall -Wextra -Wpedantic -Wconversion -Werror -fsyntax-only $(pkg-config --cflags rvengine) alone.cpp || fail "$name is no C++17"
done
count=$(ls "$prefix"/include/rvengine/*.h | wc -l)
[ "$count" = "$(ls "$SOURCE"/engine/rv*.h | wc -l)" ] || fail "$count headers are installed"

# ---- README.md's program, through pkg-config ----
awk '/^## Embed it/ { here = 1 } here && /^```c$/ { code = 1; next } code && /^```$/ { exit } code' "$SOURCE/README.md" > readme.c
grep -q 'int main' readme.c || fail "README.md has no program under \"Embed it\""
"$CC" -std=c11 -Wall -Wextra -Werror readme.c $(pkg-config --cflags --libs rvengine) -o readme
LD_LIBRARY_PATH="$prefix/$LIBDIR" ./readme "$model" "$receipt" > answer.txt
grep -q "^$wanted" answer.txt || { cat answer.txt; fail "README.md's program does not read the receipt"; }
if LD_LIBRARY_PATH="$prefix/$LIBDIR" ./readme /no/such/model "$receipt" 2> message.txt || ! grep -q /no/such/model message.txt; then fail "a model that is not there is no error"; fi

# ---- a project through find_package ----
"$CMAKE" -S "$SOURCE/tests/package/project" -B project -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$CC" -DCMAKE_CXX_COMPILER="$CXX" \
    -DREADME_PROGRAM="$SCRATCH/readme.c" -DWANTED_ABI="$abi" > project.log 2>&1 || { cat project.log; fail "find_package(rvengine) does not work"; }
"$CMAKE" --build project >> project.log 2>&1 || { cat project.log; fail "the project does not build"; }
project/embed "$model" "$receipt" | cmp - answer.txt || fail "the project's program answers otherwise"
project/service "$model" "$receipt" > service.txt || { cat service.txt; fail "the C++ service fails"; }
grep -q "^$wanted" service.txt || fail "the C++ service does not read the receipt"
if ldd project/service | grep -q librvengine; then fail "rvengine::static is not static"; fi

# ---- the programs, away from the tree: the schemas are inside ----
cd /
"$prefix/bin/rvengine" run -m "$model" -i "$receipt" | grep -q "^$wanted" || fail "the installed program does not read the receipt"
"$prefix/bin/rvengine" schema show universal > /dev/null || fail "the installed program has no schemas"
"$prefix/bin/rvengine" validate --schema demo_receipt "$SCRATCH/answer.txt" > /dev/null || fail "the installed program has no rules"
