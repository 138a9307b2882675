#!/bin/sh
# packages.sh - Debian packages, unpacked and used; a static build, alone in an empty root. Takes minutes.
#   From the environment: CMAKE BUILD SOURCE SCRATCH CC, LIBDIR
set -eu
. "$(dirname "$0")/place.sh"
cd "$SCRATCH"

# ---- a static program ----
"$CMAKE" -S "$SOURCE" -B static -G Ninja -DRV_STATIC=ON -DCMAKE_C_COMPILER="$CC" > static.log 2>&1 || { cat static.log; fail "RV_STATIC cannot be configured"; }
"$CMAKE" --build static -j "$(nproc)" >> static.log 2>&1 || { tail -50 static.log; fail "RV_STATIC does not build"; }
for program in rvengine rvbench; do
    needed=$(ldd static/$program 2>&1) || true
    case $needed in *"not a dynamic executable"* | *"statically linked"*) ;; *) fail "$program needs $needed" ;; esac
done
static/rvengine --version | grep -q '^cpu matrix library: none' || fail "oneDNN cannot be in a static program"
mkdir -p root
cp -r static/rvengine "$model" "$receipt" root
as_root=""
[ "$(id -u)" = 0 ] && as_root="chroot root" || cd root      # nothing else is in there
$as_root ./rvengine run -m model -i r7000.png --memory-limit 2G | grep -q "^$wanted" || fail "the static program does not read the receipt"
if $as_root ./rvengine extract --ocr only -s receipt r7000.png 2> "$SCRATCH/ocr.txt" || ! grep -q "static build" "$SCRATCH/ocr.txt"; then fail "OCR in a static program is not refused"; fi
cd "$SCRATCH"

# ---- Debian packages ----
command -v dpkg-deb > /dev/null && command -v dpkg-shlibdeps > /dev/null || { echo "no dpkg-dev here: packages were not made"; exit 0; }
(cd "$BUILD" && "$(dirname "$CMAKE")/cpack" -G DEB -B "$SCRATCH/debs") > cpack.log 2>&1 || { cat cpack.log; fail "cpack fails"; }
abi=$(sed -n 's/^#define RV_ABI //p' "$SOURCE/engine/rvengine.h")
for name in rvengine librvengine$abi librvengine-dev; do
    deb=$(ls debs/${name}_*.deb) || fail "no package $name"
    dpkg-deb -x "$deb" unpacked
    dpkg-deb -f "$deb" Depends Version > $name.txt
done
version=$(sed -n 's/^Version: //p' rvengine.txt)
for name in rvengine librvengine$abi; do
    for library in libc6 libjansson4 libjpeg62-turbo libpng16-16 libgif7 libpcre2-8-0 libutf8proc2; do
        grep -q "^Depends:.*$library " $name.txt || fail "$name does not depend on $library"
    done
done
grep -qF "librvengine$abi (= $version)" librvengine-dev.txt || fail "librvengine-dev does not depend on its library"
unpacked/usr/bin/rvengine run -m "$model" -i "$receipt" | grep -q "^$wanted" || fail "the packaged program does not read the receipt"
[ -s unpacked/usr/share/zsh/vendor-completions/_rvengine ] || fail "zsh on Debian finds no completion"
if command -v man > /dev/null; then MANPAGER=cat man -M unpacked/usr/share/man rvengine | grep -q 'usage\|COMMANDS' || fail "man finds no page"; fi
awk '/^## Embed it/ { here = 1 } here && /^```c$/ { code = 1; next } code && /^```$/ { exit } code' "$SOURCE/README.md" > readme.c
PKG_CONFIG_PATH=unpacked/usr/$LIBDIR/pkgconfig
export PKG_CONFIG_PATH
"$CC" readme.c $(pkg-config --cflags --libs rvengine) -o readme
LD_LIBRARY_PATH=unpacked/usr/$LIBDIR ./readme "$model" "$receipt" | grep -q "^$wanted" || fail "what was built with librvengine-dev does not read the receipt"
if command -v lintian > /dev/null; then
    lintian --allow-root debs/*.deb > lintian.txt 2>&1 || true
    ! grep '^E:' lintian.txt || fail "lintian finds errors"
    cat lintian.txt
else echo "no lintian here: packages were not judged"; fi
