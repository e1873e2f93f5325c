# What a reboot does to the network namespace of an instance. $1 is the MAC address of the primary interface, which the
# operating system configures: it and its routes in the main table stay as they are. The links of pods are gone with their
# namespaces.
nft flush ruleset
for family in -4 -6; do
    ip $family rule flush
    ip $family rule add pref 32766 lookup main
    for table in $(ip $family route show table all proto 107 | grep -o 'table [0-9]*' | cut -d ' ' -f 2 | sort -u); do
        ip $family route flush table "$table"
    done
done
ip -4 rule add pref 32767 lookup default
for link in $(ip -o link | grep -v -e LOOPBACK -e "$1" | awk -F '[:@ ]+' '{ print $2 }'); do
    ip link set "$link" down
    ip address flush dev "$link"
done
