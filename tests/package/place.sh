# place.sh - where install.sh and packages.sh work, and what they expect of the demo model. Sourced; SOURCE and SCRATCH are the caller's.
model=$SOURCE/tools/demo/model
receipt=$SOURCE/tools/demo/receipts/r7000.png
wanted='SUPPLIER: Northern Electrical'
fail() { echo "$*"; exit 1; }
rm -rf "$SCRATCH"
mkdir -p "$SCRATCH"
