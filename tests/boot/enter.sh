#!/bin/sh
# Does something in a root that stays as it is: enter.sh LOWER LAYER TESTS run COMMAND...
#                                                enter.sh LOWER LAYER TESTS boot [alone|engine]
#
# What is written goes to LAYER/upper, so that a next call goes on from there; LAYER/out is /srv/out
# inside, TESTS is /srv/tests. Booted `alone` it has a network of its own, without an outside; with the
# host's container `engine` it has the host's network, where containers have their addresses, and sets rules
# there, which `run` in the same layer can take away (`temps-netns network down`).
# To be called by `unshare --mount`: nothing that is mounted here is seen elsewhere, and all of it goes
# when the last process ends.
set -eu
lower=$1 layer=$2 tests=$3 what=$4
shift 4

mount --make-rprivate /
mkdir -p "$layer/upper" "$layer/work" "$layer/root" "$layer/out"
root=$layer/root
if ! mount -t overlay overlay -o "lowerdir=$lower,upperdir=$layer/upper,workdir=$layer/work" "$root" 2>/dev/null; then
    # Where overlays cannot be stacked, a copy does.
    root=$layer/copy
    [ -d "$root" ] || { cp -a --reflink=auto "$lower" "$root" && cp -a "$layer/upper/." "$root/"; }
fi

case $what in
run)
    mount --bind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    exec chroot "$root" "$@"
    ;;
boot)
    case $1 in
    alone | apps) set -- --private-network ;;
    engine) set -- --bind=/run/docker.sock --capability=CAP_NET_ADMIN ;;
    esac
    # On a host with the old hierarchies, systemd gets a view of the new one alone.
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # What systemd-nspawn leaves here goes with the mount. Not /run/systemd/system: whoever sees that
    # believes that systemd runs.
    mkdir -p /run/systemd
    mount -t tmpfs tmpfs /run/systemd
    # What dynamic users own is on the file system of the host: other than an overlay it can map owners,
    # as an ordinary disk can, and systemd 257 does so.
    mkdir -p "$layer/private-cache" "$layer/private-state"
    chmod 0700 "$layer/private-cache" "$layer/private-state"
    exec systemd-nspawn --quiet --keep-unit --register=no --machine="temps-test-$$" \
        --directory="$root" "$@" --link-journal=no --resolv-conf=off \
        --bind="$layer/private-cache:/var/cache/private" --bind="$layer/private-state:/var/lib/private" \
        --bind-ro="$tests:/srv/tests" --bind="$layer/out:/srv/out" --boot
    ;;
esac
