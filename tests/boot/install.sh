#!/bin/sh
# What an administrator does, and what the scenarios need: run in the root before its first boot.
set -e

if [ -e /srv/temps.deb ]; then
    dpkg --install /srv/temps.deb
else
    # The files are there already; this is what the package's own scripts do.
    systemd-sysusers
    systemd-tmpfiles --create temps.conf
    journalctl --update-catalog
    systemctl enable temps.target temps-proxy.service temps-deployd.socket temps-deployd-upload.socket \
        temps-reconcile.timer
fi
systemctl enable temps-tests.service

# An operator who is not root, and somebody who is nothing to the platform.
useradd --create-home --groups temps-admin ada
useradd --create-home bob

# It would take a minute to be idle, and two for a release to be trusted.
mkdir -p /etc/temps/deployd.toml.d
printf 'idle = "3s"\nwatch = "1s"\n' >/etc/temps/deployd.toml.d/50-tests.toml
