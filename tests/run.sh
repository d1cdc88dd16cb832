#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every suite: tests/run.sh [SUITE…]
#
#   --list    the suites, and what each needs
#
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if nothing failed.
# Safe to run twice; what it starts is stopped, and what it makes outside the cargo target directory
# is removed. See CONTRIBUTING.md for the suites, tests/never-skip.txt for those that CI never skips.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
case ${1-} in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' tests/run.sh && exit ;;
esac

# shellcheck source=tests/run.d/install.sh
. tests/run.d/install.sh
[ "${1-}" = --list ] || install_packages
require_cargo
[ "${1-}" = --list ] || require_nextest

# Outside the tree, so that a new clone of the same machine compiles no dependency again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/temps/target}
# shellcheck source=tests/run.d/target.sh
. tests/run.d/target.sh
[ "${1-}" = --list ] || distrust_other_trees

exec python3 -B tests/run.d/main.py "$@"
