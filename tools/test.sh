#!/usr/bin/env bash
# test.sh - installs what is missing, builds, and runs the tests; ends in ctest's own summary.
#
#   bash tools/test.sh          all tests, then all of them under the address and undefined behaviour
#                               sanitizers, then those with threads under the thread sanitizer;
#                               about ten minutes on two cores
#   bash tools/test.sh --cpu    only the first;  --asan  only the second;  --tsan  only the third;
#                               --cuda  the CUDA build and its tests (part of "all tests" where nvcc is)
#   bash tools/test.sh --all    all tests under every one of the three
#
# The exit code is not 0 when anything failed; suites after a failed one still run.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh

# Tests in which several threads meet; the rest has little to show to the thread sanitizer, and takes it long.
threaded='thread|service|pool'

failed=0
# suite PRESET [ctest option..]
suite() {
    preset=$1
    shift
    build "$preset" || { failed=1; return 0; }
    runner=""
    # gcc 12's thread sanitizer cannot start where addresses are randomised over more than 28 bits.
    if [ "$preset" = tsan ] && setarch "$(uname -m)" -R true 2> /dev/null; then runner="setarch $(uname -m) -R"; fi
    $runner ctest --preset "$preset" -j "$(nproc 2> /dev/null || echo 2)" "$@" || failed=1
}

# The CUDA backend is built where nvcc is; its tests are skipped, visibly, where no GPU is.
cuda() {
    if command -v nvcc > /dev/null; then suite cuda; else echo "No nvcc on PATH: the CUDA backend is not built."; fi
}

need $RV_BUILD_PACKAGES $RV_TEST_PACKAGES
case "${1-}" in
"")     suite cpu; suite asan; cuda; suite tsan -R "$threaded" ;;
--cpu)  suite cpu ;;
--asan) suite asan ;;
--tsan) suite tsan -R "$threaded" ;;
--cuda) suite cuda ;;
--all)  suite cpu; suite asan; cuda; suite tsan ;;
*)      sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
exit $failed
