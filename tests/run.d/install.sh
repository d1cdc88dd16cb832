# What the suites need that is not Rust's: sourced by tests/run.sh.
# shellcheck shell=bash

# The version whose output and configuration are known to fit.
NEXTEST=0.9.143
# `rust-version` of Cargo.toml.
RUST=1.95

# Command, Debian package, what misses it. A suite that misses its command says so itself.
NEEDED=(
    cc:gcc:everything
    make:make:"zlib, for the proxy"
    cmake:cmake:"zlib, for the proxy"
    git:git:"sources from git"
    curl:curl:demo
    python3:python3:"this runner, the Python app"
    node:nodejs:"the Node app"
    go:golang-go:"the Go app"
    dockerd:docker.io:"the docker runtime"
    dbus-daemon:dbus:"the bus"
    dbus-send:dbus-bin:"calls by another user on it"
    busybox:busybox-static:"images made in tests"
    shellcheck:shellcheck:scripts
    wrk:wrk:bench
    nginx:nginx-light:bench
    mandoc:mandoc:manuals
    groff:groff-base:manuals
    mandb:man-db:manuals
    systemd-analyze:systemd:units
    debootstrap:debootstrap:boot
    systemd-nspawn:systemd-container:boot
    ip:iproute2:boot
    dpkg-shlibdeps:dpkg-dev:package
    lintian:lintian:package
    rpmbuild:rpm:package
    rpmlint:rpmlint:package
)

# Runs a command as root, or fails where that is not possible without a question.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Installs the missing packages where apt can; says what stays missing otherwise.
install_packages() {
    local entry command package use missing=() packages=()
    for entry in "${NEEDED[@]}"; do
        IFS=: read -r command package use <<<"$entry"
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null && continue
        missing+=("$command ($use)") packages+=("$package")
    done
    # The C library's headers come with the compiler only if they are asked for.
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
        say "not installed, and apt-get cannot be used here as root: ${missing[*]}"
        return 0
    fi
    say "installing ${packages[*]}"
    # Nothing is started by being installed: the runner starts the engine, and stops it again.
    local policy=/usr/sbin/policy-rc.d own_policy=
    if [ ! -e $policy ]; then
        own_policy=1
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    local apt=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0) said
    # A list that cannot be refreshed may still do.
    said=$({ as_root "${apt[@]}" update || true; } 2>&1 &&
        as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}" 2>&1) ||
        say "$said" "apt-get failed: the suites that miss ${missing[*]} will say so"
    [ -z "$own_policy" ] || as_root rm -f $policy
}

require_cargo() {
    if ! command -v cargo >/dev/null; then
        PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
        export PATH
    fi
    local version
    if ! version=$(cargo --version 2>&1); then
        say "no cargo, neither in PATH nor in ~/.cargo/bin: install Rust $RUST or newer (https://rustup.rs)"
        exit 69
    fi
    version=${version#cargo }
    if [ "$(printf '%s\n' "$RUST" "${version%% *}" | sort -V | head -n1)" != "$RUST" ]; then
        say "cargo ${version%% *} is too old: install Rust $RUST or newer (rustup update stable)"
        exit 69
    fi
    local part
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 || {
            say "no cargo $part: rustup component add ${part/fmt/rustfmt}"
            exit 69
        }
    done
}

require_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return 0
    say "installing cargo-nextest $NEXTEST, which takes some minutes"
    # Optimised little: it is compiled once more often than it runs long.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        timeout 1800 cargo install --quiet --locked --version "$NEXTEST" cargo-nextest >&2
}
