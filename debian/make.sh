#!/bin/sh
#
# make.sh: what `make deb` runs: the packages for the majors whose headers this system has.
#
#	DEB=folder			where they go; packages/ in the source tree otherwise
#
# Builds in a temporary folder; nothing in the source tree is changed.

set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
to=${DEB:-$top/packages}
for command in git dpkg-buildpackage dh pg_buildext; do
	command -v $command >/dev/null && continue
	echo "make deb needs $command. As root:" >&2
	echo "  apt-get install git dpkg-dev debhelper libc-ares-dev libhiredis-dev libssl-dev" \
		"pkgconf postgresql-server-dev-all" >&2
	exit 1
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
tree=$("$top/debian/source.sh" "$work")

(cd "$work/$tree" && pg_buildext updatecontrol >"$work/log" 2>&1 &&
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS dpkg-buildpackage -us -uc >>"$work/log" 2>&1) ||
	{ cat "$work/log" >&2; exit 1; }
mkdir -p "$to"
cp "$work"/pg-uncache_* "$work"/*.deb "$to"
ls "$to"/*.deb
