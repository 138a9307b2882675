# packages.sh - the Debian 12 packages that rvengine needs, and how to get them. Sourced by demo.sh
# and test.sh; asks the network only when something is missing.
build_packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libutf8proc-dev libpcre2-dev libjpeg-dev libpng-dev libgif-dev libxxhash-dev libdnnl-dev"
test_packages="libcmocka-dev"            # what tests are built with, and what some run
run_packages="poppler-utils libtesseract5 tesseract-ocr-eng"

# need PACKAGE..: installs those that are missing (as root, or through sudo), or says what to do.
need() {
    if ! command -v dpkg > /dev/null; then
        echo "This is no Debian machine: make sure that the counterparts of these are installed: $*" >&2
        return 0
    fi
    missing=""
    for package in "$@"; do
        dpkg -s "$package" 2> /dev/null | grep -q '^Status: install ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then as_root="sudo"
        else
            echo "Missing packages, and this is neither root nor a user with sudo. Ask for:" >&2
            echo "    apt-get install$missing" >&2
            return 1
        fi
    fi
    echo "Installing$missing"
    [ -n "${updated-}" ] || $as_root apt-get update -qq || echo "apt-get update failed: trying with the package lists that are there" >&2
    updated=1
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null || {
        echo "apt-get could not install:$missing" >&2
        return 1
    }
}

# build PRESET [TARGET..]: configures and builds, quietly unless something is wrong.
build() {
    preset=$1
    shift
    [ $# -gt 0 ] || set -- all
    jobs=$(nproc 2> /dev/null || echo 2)
    mkdir -p "build/$preset"
    log="build/$preset/build.log"
    echo "Building (build/$preset, $jobs jobs)"
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" -j "$jobs" --target "$@"; } > "$log" 2>&1; then
        cat "$log" >&2
        echo "The build failed; the log above is $log" >&2
        return 1
    fi
}
