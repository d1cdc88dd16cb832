"""Which scenarios run, and on which machine."""

# Each runs in one boot of a root of its own; later scenarios find what earlier ones left.
#   server   an ordinary server on which nothing of ours was ever installed
#   taken    somebody else has the ports 80 and 443
#   bare     neither dbus nor polkit
#   foreign  the .rpm instead, with the host's rpm
#   image    the package was installed before the first boot, where no systemd ran
WORLDS = {
    "server": ["installing", "setting_up", "upgrading", "costing", "removing"],
    "taken": ["taken"],
    "bare": ["bare"],
    "foreign": ["foreign"],
    "image": ["image", "asking"],
}
# What takes too long for a suite, or says nothing of a debug build: run where it is asked for by name.
BY_HAND = {"idle": ["idle"]}
