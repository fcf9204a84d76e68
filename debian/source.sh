#!/bin/sh
#
# source.sh FOLDER: write the source package's parts to FOLDER: pg-uncache_VERSION.orig.tar.gz
# and the unpacked tree with debian/, pg-uncache-VERSION.  Prints the name of that tree.
#
# Taken from the working tree of a git repository: what git knows of, as it is there now.

set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
to=$(cd "$1" && pwd)
git="git -C $top -c safe.directory=* -c user.name=none -c user.email=none"
version=$(sed -n '1s/.*(\(.*\)-[^-]*).*/\1/p' "$top/debian/changelog")
tree=pg-uncache-$version

# A commit that no branch knows, where something is changed; nothing is printed elsewhere.
state=$($git stash create)
$git archive --format=tar.gz --prefix="$tree/" -o "$to/pg-uncache_$version.orig.tar.gz" \
	"${state:-HEAD}"
tar -C "$to" -xzf "$to/pg-uncache_$version.orig.tar.gz"
$git ls-files -z debian | tar -C "$top" --null -T - -cf - | tar -C "$to/$tree" -xf -
echo "$tree"
