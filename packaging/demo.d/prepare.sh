# What the demo needs: sourced by packaging/demo.sh.
# shellcheck shell=bash disable=SC2154 # demo.sh has set what is used here

# `rust-version` of Cargo.toml.
RUST=1.95

# Command and Debian package.
NEEDED=(curl:curl git:git python3:python3)
# What compiling needs on top: cmake and make for zlib, which the proxy compresses with.
NEEDED_TO_BUILD=(cc:gcc make:make cmake:cmake)

install_missing() {
    local entry packages=() needed=("${NEEDED[@]}")
    [ -n "${TEMPS_BIN-}" ] || needed+=("${NEEDED_TO_BUILD[@]}")
    for entry in "${needed[@]}"; do
        command -v "${entry%%:*}" >/dev/null || packages+=("${entry#*:}")
    done
    [ -n "${TEMPS_BIN-}" ] || [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    if [ ${#packages[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || fail "install ${packages[*]}: there is no apt-get here to do it"
        echo "  installing ${packages[*]}"
        local sudo=()
        [ "$(id -u)" = 0 ] || sudo=(sudo)
        # A list of packages that cannot be refreshed may still do.
        "${sudo[@]}" apt-get -qq -o DPkg::Lock::Timeout=120 update || true
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq -y \
            --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
            install "${packages[@]}" >"$work/apt" 2>&1 || fail "apt-get: $(tail -n 5 "$work/apt")"
    fi
    [ -n "${TEMPS_BIN-}" ] || find_cargo
    echo "  everything is there"
}

find_cargo() {
    usable_cargo && return
    echo "  no Rust $RUST or newer: installing it with rustup into ~/.rustup and ~/.cargo"
    if ! install_rust >"$work/rustup" 2>&1 || ! usable_cargo; then
        tail -n 3 "$work/rustup" >&2
        fail "Rust $RUST or newer is needed and could not be installed: see https://rustup.rs, then run this again"
    fi
}

# Finds a cargo that is new enough; rustup puts it where no shell looks until it is started anew.
usable_cargo() {
    local found version
    for found in cargo "${CARGO_HOME:-$HOME/.cargo}/bin/cargo"; do
        version=$("$found" --version 2>/dev/null) || continue
        version=${version#cargo }
        version=${version%% *}
        if [ "$(printf '%s\n' "$RUST" "$version" | sort -V | head -n1)" = "$RUST" ]; then
            cargo=$found
            PATH=$PATH:$(dirname "$(command -v "$found")")
            return 0
        fi
        echo "  $found is $version, too old"
    done
    return 1
}

install_rust() {
    if ! command -v rustup; then
        curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location --connect-timeout 20 --max-time 120 \
            --output "$work/rustup-init" "https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init" &&
            chmod +x "$work/rustup-init" &&
            "$work/rustup-init" -y --no-modify-path --profile minimal --default-toolchain stable
        return
    fi
    rustup toolchain install --profile minimal stable && rustup default stable
}

build() {
    if [ -n "${TEMPS_BIN-}" ]; then
        temps=$(realpath "$TEMPS_BIN")
        [ -x "$temps" ] || fail "TEMPS_BIN=$TEMPS_BIN is no program"
        echo "  $temps, as TEMPS_BIN says"
        return
    fi
    echo "  compiling, which takes minutes for the first time"
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/temps/target}
    "$cargo" build --locked --release --package temps || fail "it does not build"
    temps=$CARGO_TARGET_DIR/release/temps
}

# The port, or the next one that nobody listens on.
free_port() {
    python3 - "$1" <<'PYTHON'
import socket, sys
for port in range(int(sys.argv[1]), int(sys.argv[1]) + 100):
    with socket.socket() as one:
        # As the proxy binds it: a connection of a former run may linger.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
        break
PYTHON
}
