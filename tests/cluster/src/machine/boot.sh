# The first process of a machine. $1 is the machine's directory. It runs in its own mount and process namespaces.
dir=$1

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns

# Paths that are fixed in kubelet, containerd and CNI plugins. Each machine has its own directories.
for path in /opt/cni/bin /etc/cni/net.d /var/lib/kubelet /var/lib/cni /var/log; do
    mkdir -p "$path" "$dir/root$path"
    mount --bind "$dir/root$path" "$path"
done
mkdir -p /var/log/pods /var/log/containers

# Images for Kubernetes nodes contain the standard plugins. containerd executes this one for every sandbox.
cp /usr/lib/cni/loopback /opt/cni/bin/

# kubelet sets these, and they apply to the whole kernel. It does not write a value that is already set.
while read -r name value; do
    mkdir -p "$dir/sysctl"
    echo "$value" > "$dir/sysctl/$name"
    mount --bind "$dir/sysctl/$name" "/proc/sys/$(echo "$name" | tr . /)"
done <<LIST
vm.overcommit_memory 1
vm.panic_on_oom 0
kernel.panic 10
kernel.panic_on_oops 1
kernel.keys.root_maxkeys 1000000
kernel.keys.root_maxbytes 25000000
LIST

# Otherwise, a machine would keep its boot id when it is rebooted. Containers mount their own /proc and see this machine's.
cat /proc/sys/kernel/random/uuid > "$dir/boot_id"
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id

# As in images for Kubernetes nodes.
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "nameserver 169.254.169.253" > "$dir/resolv.conf"

# kubelet mounts volumes in its own mount namespace, and containerd must see them.
mount --make-rshared /
touch "$dir/booted"

# Not exec: the shell waits and reaps orphaned processes, like an init process.
sleep infinity
