#!/bin/sh
# assemble.sh IPAMD PLUGIN DIRECTORY: creates the root of the image in DIRECTORY: both programs, the daemon's shared
# libraries, the certificate authorities, and in /usr/share/doc/hawser the licences and the list of crates. Run it in a
# checkout whose dependencies cargo has fetched.
set -eu

ipamd=$1 plugin=$2 root=$3
doc=$root/usr/share/doc/hawser
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp" "$doc"

strip -o "$root/usr/bin/ipamd" "$ipamd"
install -m 755 "$plugin" "$root/usr/bin/hawser"

# Lines of ldd: "name => path (address)", and for the loader "path (address)". The C library resolves names without further
# files (since 2.34, its modules for files and DNS are in libc.so.6).
for library in $(ldd "$ipamd" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'); do
    install -D -m 755 "$library" "$root$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
echo "root:x:0:0:root:/:/sbin/nologin" > "$root/etc/passwd"

cp LICENSE "$doc/LICENSE"
cp /usr/share/doc/libc6/copyright "$doc/glibc.copyright"
# Linked statically: musl into the plugin, Rust's standard library into both.
cp deploy/image/musl.copyright "$doc/musl.copyright"
gzip -9nc "$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html" > "$doc/rust-std.copyright.html.gz"

# Every crate that is linked into either program: name, version, licence. cargo marks repeated lines with (*).
crates=$(mktemp)
cargo --locked --offline tree --package ipamd --package cni-plugin --edges normal --prefix none --format '{p}|{l}' |
    sed -n 's/ (\*)$//; s/^\([^ ]*\) v\([^ |]*\)[^|]*|\(..*\)$/\1 \2 \3/p' | sort -u > "$crates"

awk -v created="$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%dT%H:%M:%SZ)" '
    BEGIN {
        printf "{\"spdxVersion\":\"SPDX-2.3\",\"dataLicense\":\"CC0-1.0\",\"SPDXID\":\"SPDXRef-DOCUMENT\",\"name\":\"hawser\","
        printf "\"documentNamespace\":\"https://hawser.dev/spdx/%s\",", created
        printf "\"creationInfo\":{\"created\":\"%s\",\"creators\":[\"Tool: assemble.sh\"]},\"packages\":[", created
    }
    {
        licence = $0
        sub(/^[^ ]* [^ ]* /, "", licence)
        gsub(/ *\/ */, " OR ", licence); gsub(/  +/, " ", licence)
        id = "SPDXRef-" $1 "-" $2
        gsub(/[^A-Za-z0-9.-]/, "-", id)
        printf "%s{\"SPDXID\":\"%s\",\"name\":\"%s\",\"versionInfo\":\"%s\",", (NR > 1 ? "," : ""), id, $1, $2
        printf "\"licenseDeclared\":\"%s\",\"downloadLocation\":\"NOASSERTION\",\"filesAnalyzed\":false,", licence
        printf "\"externalRefs\":[{\"referenceCategory\":\"PACKAGE-MANAGER\",\"referenceType\":\"purl\","
        printf "\"referenceLocator\":\"pkg:cargo/%s@%s\"}]}", $1, $2
        described = described (NR > 1 ? "," : "") "{\"spdxElementId\":\"SPDXRef-DOCUMENT\"," \
            "\"relationshipType\":\"DESCRIBES\",\"relatedSpdxElement\":\"" id "\"}"
    }
    END { printf "],\"relationships\":[%s]}\n", described }
' "$crates" > "$doc/sbom.spdx.json"

# Each licence text once, below the names of the files that contain it.
texts=$(mktemp -d) sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
while read -r name version licence; do
    for file in "$sources"/*/"$name-$version"/[Ll][Ii][Cc][Ee][Nn][SsCc][Ee]* "$sources"/*/"$name-$version"/COPYING*; do
        [ -f "$file" ] || continue
        sum=$(sha256sum "$file" | cut -d ' ' -f 1)
        echo "$name $version: $(basename "$file")" >> "$texts/$sum.names"
        cp "$file" "$texts/$sum.text"
    done
done < "$crates"
for names in "$texts"/*.names; do
    cat "$names"
    echo
    cat "${names%.names}.text"
    echo
    echo "------------------------------------------------------------------------"
done | gzip -9n > "$doc/third-party-licenses.txt.gz"
rm -r "$crates" "$texts"
