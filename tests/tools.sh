#!/bin/sh
# tools.sh [conformance]: installs missing packages that are needed to build and test, or for `make conformance`. Prints
# nothing if none are missing.
set -eu

missing=""
need() { # command package
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need_file() { # path package
    [ -e "$1" ] || missing="$missing $2"
}
need gcc gcc
need g++ g++ # for libFuzzer
need ip iproute2
need nft nftables
need iptables-restore iptables
need containerd containerd
need runc runc
need_file /usr/lib/cni/loopback containernetworking-plugins # containerd executes it for every sandbox
need busybox busybox-static
need setpriv util-linux
need openssl openssl # the test cluster's certificates
need buildah buildah
[ -x /usr/local/go/bin/go ] || need go golang-go # too old for the test cluster's programs, but it can fetch a newer Go
need chromium chromium # the live page is tested in a real browser
python3 -c 'import ensurepip, tomllib' 2>/dev/null || missing="$missing python3-venv" # for tests/conformance
if [ "${1:-}" = conformance ]; then
    # The specs run these in pods.
    need curl curl
    need dig bind9-dnsutils
    need nc.openbsd netcat-openbsd
fi

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || { echo "tools: please install:$missing" >&2; exit 1; }
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    echo "== installing:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 -- a list of words on purpose
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# The package is unpacked and not installed: only promtool is needed, and an installed package would run a server.
if ! command -v promtool >/dev/null; then
    echo "== unpacking promtool from Debian's package prometheus"
    unpacked=$(mktemp -d)
    (cd "$unpacked" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    $as_root install "$unpacked/usr/bin/promtool" /usr/local/bin/promtool
    rm -r "$unpacked"
fi

command -v cargo >/dev/null || { echo "tools: Rust is missing: install rustup and the toolchain of rust-version in Cargo.toml" >&2; exit 1; }
# A debug build takes a third of the time, and the program only starts tests.
cargo nextest --version >/dev/null 2>&1 || { echo "== installing cargo-nextest"; cargo install -q --locked --debug cargo-nextest; }
