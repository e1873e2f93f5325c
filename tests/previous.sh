#!/bin/sh
# Builds the daemon and the plugin of another commit: previous.sh COMMIT DIRECTORY. Does nothing if both are there.
#
# The sources are unpacked beside the build, so that the checkout stays as it is. Target directory and selection are
# those of this checkout: what both commits lock at the same version, the EC2 client above all, is not compiled twice.
set -eu

commit=$1
directory=$2
if [ -x "$directory/ipamd" ] && [ -x "$directory/hawser" ]; then
    exit 0
fi
git cat-file -e "$commit^{commit}" 2>/dev/null || {
    echo "previous: this clone has no commit $commit: run git fetch --unshallow" >&2
    exit 1
}
echo "== building the previous release, for the upgrade tests"
mkdir -p "$directory/source"
git archive "$commit" | tar -x -C "$directory/source"
cd "$directory/source"
make -s plugin HAWSER_PLUGIN="$directory/hawser"
cargo --locked build -q --workspace --bin ipamd
# Copied under another name first: the next build of this checkout replaces the file in the target directory.
cp "$CARGO_TARGET_DIR/debug/ipamd" "$directory/ipamd.new"
mv "$directory/ipamd.new" "$directory/ipamd"
