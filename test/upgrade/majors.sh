#!/bin/bash
#
# majors.sh OLD NEW: pg_upgrade from one major of PostgreSQL to another, with rules and a
# backlog, in a Debian of its own.  For run.sh, as root.
#
# Model: the system of the newer major (test/matrix/systems.sh), with the older one's server
# and headers unpacked into a copy of it: Debian's libraries of a later suite serve an older
# server, but for a few that are unpacked beside them.  majors_inside.sh does the rest.

set -u
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/test/matrix/systems.sh"
old=$1
new=$2
work=

[ "$(id -u)" -eq 0 ] || { echo "make test-upgrade MAJORS=... needs root" >&2; exit 1; }
bash "$SOURCE/test/lib/packages.sh" systems || exit 1
trap '[ -z "$work" ] || rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
folder=$(system_make "$new") || exit 1
work=$(mktemp -d /var/tmp/uncache-upgrade.XXXXXX)
mkdir "$work/over" "$work/aside" "$work/root" "$work/debs" "$work/libraries"

# What the older server needs of its own suite.
fetch_old()
{
	local suite at get libraries wanted signed=/usr/share/keyrings/debian-archive-keyring.gpg

	suite=$(suite_of "$old") && at=$(mirror) || return 1
	mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
	{
		echo "deb [signed-by=$signed] $at $suite main"
		echo "deb [signed-by=$signed] ${at%debian/}debian-security/ $suite-security main"
	} >"$work/apt/sources"
	get="apt-get -qq -o Dir::Etc::SourceList=$work/apt/sources -o Dir::Etc::SourceParts=/dev/null"
	get+=" -o Dir::State::Lists=$work/apt/lists -o Dir::Cache=$work/apt -o APT::Sandbox::User=root"
	$get update || return 1
	wanted='^lib(icu|ldap|gnutls|hogweed|nettle|gmp|idn2|p11-kit|tasn1|unistring|ffi|sasl2-2|db5)'
	libraries=$(apt-cache ${get#apt-get -qq} depends --recurse --no-recommends --no-suggests \
		--no-conflicts --no-breaks --no-replaces --no-enhances "postgresql-$old" |
		grep -E "$wanted" | sort -u)
	(cd "$work/debs" && $get download "postgresql-$old" "postgresql-client-$old" \
		"postgresql-server-dev-$old") && (cd "$work/libraries" && $get download $libraries)
}

fetch_old || { echo "PostgreSQL $old can't be had from the mirror"; exit 77; }
unshare --mount bash -c '
	mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/over,workdir=$2/aside" "$2/root" &&
	for deb in "$2"/debs/*.deb; do dpkg -x "$deb" "$2/root" || exit 1; done
	for deb in "$2"/libraries/*.deb; do dpkg -x "$deb" "$2/unpacked" || exit 1; done
	# Only those that the system has not.
	for folder in "$2"/unpacked/usr/lib "$2"/unpacked/lib; do
		[ ! -d "$folder" ] || cp -a --no-clobber "$folder/." "$2/root/usr/lib"
	done
	shift 2
	. "$1/test/matrix/systems.sh"
	SOURCE=$1
	system_run "$2/root" bash /mnt/test/upgrade/majors_inside.sh "$3" "$4"
' majors "$folder" "$work" "$SOURCE" "$work" "$old" "$new"
