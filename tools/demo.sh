#!/usr/bin/env bash
# demo.sh - from a fresh Debian 12 to text read from receipts: installs what is missing, builds, and
# runs the demo model on the eight receipts of tools/demo/receipts.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh
need $build_packages $test_packages      # the tests are part of the build
build cpu rvengine

rvengine=build/cpu/rvengine
echo
echo "A trained model of 15.9 million parameters reads eight receipts that it has never seen."
for image in tools/demo/receipts/*.png; do
    start=$(date +%s%N)
    text=$($rvengine run --model tools/demo/model --image "$image")
    end=$(date +%s%N)
    ms=$(((end - start) / 1000000))
    printf '\n== %s (%d.%02d s from start to end)\n%s\n' "$image" $((ms / 1000)) $((ms % 1000 / 10)) "$text"
done
echo
echo "One of them again, with times: $rvengine run --model tools/demo/model --image tools/demo/receipts/r7000.png --verbose"
$rvengine run --model tools/demo/model --image tools/demo/receipts/r7000.png --verbose > /dev/null
