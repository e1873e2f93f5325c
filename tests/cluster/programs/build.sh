#!/bin/sh
# build.sh DIRECTORY [conformance]: builds the programs of a Kubernetes cluster into DIRECTORY, or the conformance suites,
# from the Go module proxy. Does nothing if they exist. The directory's name contains a hash of the files here (see the
# Makefile), so a machine builds each version once.
#
# With empty caches, the cluster takes ten minutes on two cores and 3 GB of memory, and the suites take one minute more.
set -eu

out=$1
what=${2:-cluster}
cd "$(dirname "$0")"
[ ! -e "$out/complete" ] || exit 0

mkdir -p "$(dirname "$out")"
exec 9>"$out.lock"
flock 9 # Two builds of one checkout at once: the second finds what the first made.
[ ! -e "$out/complete" ] || exit 0

# Since version 1.21, Go downloads a newer Go by itself. An older Go can download it as a module and verify its checksum.
wanted=$(sed -n 's/^go //p' go.mod)
go=$(command -v go || echo /usr/local/go/bin/go)
oldest=$(printf '%s\n' "$wanted" "$("$go" env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)
if [ "$oldest" != "$wanted" ]; then
    export GOTOOLCHAIN=auto
    if [ "$(printf '%s\n' 1.21 "$oldest" | sort -V | head -n 1)" != 1.21 ]; then
        toolchain=golang.org/toolchain@v0.0.1-go$wanted.linux-$("$go" env GOARCH)
        root=$(cd / && "$go" mod download -json "$toolchain" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
        chmod -R u+w,+x "$root/bin" "$root/pkg/tool"
        go=$root/bin/go GOTOOLCHAIN=local
    fi
fi

version() { # The version of module $1.
    "$go" list -m -f '{{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}' "$1"
}
kubernetes=$(version k8s.io/kubernetes)
containerd=$(version github.com/containerd/containerd/v2)
minor=${kubernetes#v1.} # 35.4
k8s=k8s.io/component-base/version
rm -rf "$out.new"
mkdir -p "$out.new"

build() { # Linker flags, then arguments of go build.
    flags=$1
    shift
    CGO_ENABLED=0 nice "$go" build -trimpath -ldflags "-s -w $flags" -o "$out.new/" "$@"
}
# Components without a version report v0.0.0, and other components refuse them.
stamp="-X $k8s.gitVersion=$kubernetes -X $k8s.gitMajor=1 -X $k8s.gitMinor=${minor%%.*}"
build_cluster() {
    echo "== building the programs of a Kubernetes cluster (once; about ten minutes)"
    build "$stamp" ./kube
    build "" ./coredns k8s.io/kubernetes/test/images/agnhost
    # The certificate of agnhost's TLS server.
    install -m 644 "$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)"/test/images/agnhost/porter/localhost.* "$out.new/"
    # Helm assumes this version of Kubernetes if it has no cluster.
    helm=helm.sh/helm/v3
    build "-X $helm/internal/version.version=$(version $helm) -X $helm/pkg/chartutil.k8sVersionMajor=1 \
        -X $helm/pkg/chartutil.k8sVersionMinor=${minor%%.*}" $helm/cmd/helm
    build "-X github.com/containerd/containerd/v2/version.Version=$containerd" -tags no_btrfs,no_devmapper,no_zfs \
        github.com/containerd/containerd/v2/cmd/containerd \
        github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
        github.com/containerd/containerd/v2/cmd/ctr
    for name in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do
        ln -s kube "$out.new/$name"
    done
}

build_conformance() {
    echo "== building the conformance suites (once; three minutes)"
    CGO_ENABLED=0 nice "$go" test -trimpath -ldflags "-s -w $stamp" -c -o "$out.new/e2e.test" ./e2e
    CGO_ENABLED=0 nice "$go" test -trimpath -ldflags "-s -w" -c -o "$out.new/critest" ./critest
}

"build_$what"
touch "$out.new/complete"
rm -rf "$out"
mv "$out.new" "$out"
