#!/bin/sh
# build.sh DIRECTORY: builds the programs of the AWS VPC CNI into DIRECTORY, from the Go module proxy. Does nothing if they
# exist. The directory's name contains a hash of the files here (see the Makefile), so a machine builds each version once.
#
# With an empty cache, it takes four minutes on two cores.
set -eu

out=$1
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

echo "== building the AWS VPC CNI (once; about four minutes)"
module=github.com/aws/amazon-vpc-cni-k8s
rm -rf "$out.new"
mkdir -p "$out.new"
# Without version stamps, as upstream builds them: the daemon refuses a plugin with another stamp than its own.
CGO_ENABLED=0 nice "$go" build -trimpath -ldflags "-s -w" -o "$out.new/" tool
install -m 644 "$("$go" list -m -f '{{.Dir}}' $module)/misc/10-aws.conflist" "$out.new/"
touch "$out.new/complete"
rm -rf "$out"
mv "$out.new" "$out"
