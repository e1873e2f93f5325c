# The first process of a machine. $1 is the machine's directory. Runs with mounts and process ids of its own.
dir=$1

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns

# Directories that kubelet, containerd and CNI plugins know by these paths. Each machine has its own.
for path in /opt/cni/bin /etc/cni/net.d /var/lib/kubelet /var/lib/cni /var/log; do
    mkdir -p "$path" "$dir/root$path"
    mount --bind "$dir/root$path" "$path"
done
mkdir -p /var/log/pods /var/log/containers

# The images for Kubernetes nodes come with the standard plugins. containerd executes this one for every sandbox.
cp /usr/lib/cni/loopback /opt/cni/bin/

# kubelet sets these, and they belong to the whole kernel. It leaves alone what already has the value that it wants.
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

# As the images for Kubernetes nodes have it.
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "nameserver 169.254.169.253" > "$dir/resolv.conf"

# kubelet mounts volumes in its own mount namespace, and containerd must see them.
mount --make-rshared /
touch "$dir/booted"

# Not exec: the shell waits, and so reaps the processes whose parents have ended, as an init must.
sleep infinity
