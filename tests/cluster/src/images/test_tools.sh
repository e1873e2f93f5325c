# test_tools.sh ROOT PROGRAMS: fills ROOT with the files of the conformance tests' image. PROGRAMS is the directory with
# agnhost and the certificate of its TLS server.
root=$1 programs=$2
mkdir -p "$root/bin" "$root/usr/bin" "$root/etc" "$root/tmp"

cp "$programs/agnhost" "$programs/localhost.crt" "$programs/localhost.key" "$root/"

# The specs run these in pods. Programs that resolve names must not be Debian's busybox: it is static, and crashes there.
for name in sh curl dig nc.openbsd getent hostname; do
    program=$(readlink -f "$(command -v "$name")")
    install -m 755 "$program" "$root/usr/bin/${name%.openbsd}"
    # Lines of ldd: "name => path (address)", and for the loader "path (address)".
    for library in $(ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'); do
        [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done
done
ln -s /usr/bin/sh "$root/bin/sh"
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
    [ -e "$root/usr/bin/$applet" ] || [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
echo "root:x:0:0:root:/:/bin/sh" > "$root/etc/passwd"
