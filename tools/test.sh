#!/usr/bin/env bash
# test.sh - installs what is missing, builds, and runs the tests; ends in ctest's own summary.
#
#   bash tools/test.sh          all tests, then all of them under the address and undefined behaviour
#                               sanitizers, then those with threads under the thread sanitizer;
#                               fifteen to twenty minutes on two cores
#   bash tools/test.sh --cpu    only the first;  --asan  only the second;  --tsan  only the third;
#                               --cuda  the CUDA build and its tests (part of "all tests" where nvcc is)
#   bash tools/test.sh --all    all tests under every one of the three
#
# The exit code is not 0 when anything failed; suites after a failed one still run.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh

# Tests in which several threads meet; the rest has little to show to the thread sanitizer, and takes it long. What they are built from.
threaded='thread|service|pool'
threaded_targets="test_threads service test_kernels_pool"

# What is labelled gpu or cuda; all else is as in the first suite.
cuda_targets="rvengine rvbench rvengine_shared tests/gpu/all tests/fake_gpu/all tests/facts/all test_cli_cuda test_session_gpu test_rows_gpu test_constraint_gpu
              test_memory_gpu test_spoilt_gpu test_golden_shapes_gpu test_session_sm70 test_rows_sm70"

failed=0
# suite PRESET "TARGET.." [ctest option..]
suite() {
    preset=$1 targets=$2
    shift 2
    # shellcheck disable=SC2086
    CMAKE_C_COMPILER_LAUNCHER=$(launcher "$preset") build "$preset" $targets || { failed=1; return 0; }
    have_run_packages
    runner=""
    # gcc 12's thread sanitizer cannot start where addresses are randomised over more than 28 bits.
    if [ "$preset" = tsan ] && setarch "$(uname -m)" -R true 2> /dev/null; then runner="setarch $(uname -m) -R"; fi
    # One more than there are cores: tests wait for processes and threads of their own.
    $runner ctest --preset "$preset" -j "$(($(nproc 2> /dev/null || echo 2) + 1))" "$@" || failed=1
}

# What the CPU and the CUDA build have in common is compiled once, wherever they stand.
export CCACHE_DIR="${CCACHE_DIR-$PWD/build/ccache}" CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1
launcher() {
    case $1 in cpu | cuda) echo "${CMAKE_C_COMPILER_LAUNCHER-$(command -v ccache || true)}" ;; *) echo "${CMAKE_C_COMPILER_LAUNCHER-}" ;; esac
}

have_run_packages() {
    [ -z "$installing" ] || wait "$installing" || exit 1
    installing=""
}

# The CUDA backend is built where nvcc is; its tests are skipped, visibly, where no GPU is.
cuda() {
    if command -v nvcc > /dev/null; then suite cuda "$cuda_targets"; else echo "No nvcc on PATH: the CUDA backend is not built."; fi
}

need $build_packages $test_packages ccache
need $run_packages &                     # beside the first build, which needs none of them
installing=$!
case "${1-}" in
"")     suite cpu all; suite asan all; cuda; suite tsan "$threaded_targets" -R "$threaded" ;;
--cpu)  suite cpu all ;;
--asan) suite asan all ;;
--tsan) suite tsan "$threaded_targets" -R "$threaded" ;;
--cuda) suite cuda "$cuda_targets" ;;
--all)  suite cpu all; suite asan all; cuda; suite tsan all ;;
*)      sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
exit $failed
