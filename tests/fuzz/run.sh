#!/bin/sh
# run.sh SOURCE build | TARGET - builds the fuzzers with clang, or runs one; 77 where there is no clang.
#
# RV_FUZZ_SECONDS (60): how long. New inputs are kept in build/fuzz/found/TARGET, and what broke something is beside it, as
# build/fuzz/found/TARGET-crash-..; `replay TARGET CORPUS FILE` runs it in any build.
set -u
source=$1 what=$2 seconds=${RV_FUZZ_SECONDS-60}
build=$source/build/fuzz
corpus=$source/tests/fuzz/corpus/$what
clang=${RV_FUZZ_CLANG-clang}

command -v "$clang" > /dev/null || { echo "SKIPPED: no clang here: apt-get install clang libclang-rt-dev"; exit 77; }
if [ "$what" = build ]; then
    log=$build/build.log
    mkdir -p "$build"
    { cd "$source" && cmake --preset fuzz -DCMAKE_C_COMPILER="$clang" && cmake --build "$build" --target fuzz_all -j "$(nproc)"; } > "$log" 2>&1 && exit 0
    grep -q 'libclang_rt.fuzzer' "$log" && { echo "SKIPPED: clang here has no libFuzzer: apt-get install libclang-rt-dev"; exit 77; }
    tail -n 40 "$log"
    exit 1
fi
[ -x "$build/tests/fuzz/fuzz_$what" ] || { echo "SKIPPED: fuzz_$what is not built"; exit 77; }
found=$build/found/$what
mkdir -p "$found"
limits="-rss_limit_mb=3000 -timeout=20 -max_len=65536"
case $what in
image) ;;
*)     limits="$limits -dict=$source/tests/fuzz/json.dict" ;;
esac
exec "$build/tests/fuzz/fuzz_$what" $limits -max_total_time="$seconds" -print_final_stats=1 -verbosity=1 -artifact_prefix="$found-" "$found" "$corpus"
