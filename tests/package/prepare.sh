#!/bin/sh
# What is on a machine before the package is: run in the root before its first boot, with the world.
set -e
export DEBIAN_FRONTEND=noninteractive

systemctl enable temps-tests.service
# One who becomes an operator, and one who does not.
useradd --create-home ada
useradd --create-home bob

case $1 in
taken)
    systemctl enable taken.service
    ;;
bare)
    # Nothing that is left needs them.
    apt-get --yes --quiet purge dbus polkitd
    ;;
image)
    dpkg --install /srv/out/debs/1.deb
    ;;
esac
