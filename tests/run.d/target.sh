# Keeps a target directory that several clones share from passing for another clone's: sourced by
# tests/run.sh.
#
# Cargo knows a source file of the workspace by its path below the workspace and by its time, so
# that a clone checked out *before* the last build of another clone would count as built. Crates
# from the registry are known by their checksum and stay.
# shellcheck shell=bash

distrust_other_trees() {
    local stamp=$CARGO_TARGET_DIR/.tree tree files
    mkdir -p "$CARGO_TARGET_DIR"
    files=$(git ls-files -z --cached --others --exclude-standard 2>/dev/null |
        xargs -0r sha256sum 2>/dev/null | sha256sum | cut -d' ' -f1 || true)
    # Outside CI the same path is enough: a file that is edited gets a new time.
    tree="$PWD"
    [ -z "${CI-}" ] || tree="$PWD $files"
    # Without a stamp only CI is in doubt: elsewhere cargo filled it, and from one tree.
    if [ -e "$CARGO_TARGET_DIR/debug" ] && { [ -e "$stamp" ] || [ -n "${CI-}" ]; } &&
        [ "$(cat "$stamp" 2>/dev/null)" != "$tree" ]; then
        say "the target directory was used for other sources: building the workspace anew"
        local member members=()
        while read -r member; do members+=(-p "$member"); done < <(
            cargo metadata --no-deps --format-version 1 --locked |
                python3 -c 'import json, sys; [print(p["name"]) for p in json.load(sys.stdin)["packages"]]'
        )
        cargo clean --quiet "${members[@]}"
    fi
    printf '%s' "$tree" >"$stamp"
}
