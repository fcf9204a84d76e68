#!/bin/bash
#
# run.sh: what `make test-packages` runs: each way to install pg_uncache, in fresh Debian
# systems, up to a key that a COMMIT has deleted.
#
#	SUITES="bookworm trixie"	only these; bookworm, trixie and forky otherwise
#	WAYS="deb"					only these; deb, source and pgxn otherwise
#	SYSTEMS=/folder				where the systems are kept
#
# Model: $SYSTEMS/fresh-SUITE is a Debian with apt and little else, made once.  Each way runs
# in a copy of its own, which the kernel makes as it is written to (overlayfs), so the system
# stays fresh.  In it inside.sh does what the way's documentation says.  Packages that apt has
# fetched are kept beside the system for the next time.
#
# The systems have the machine's network, for apt.  Servers in them listen on Unix sockets
# only, and end with their process namespace.
#
# Needs root, git and a Debian mirror.  The last line is "N passed, N failed".

set -u
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/test/matrix/systems.sh"
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
passed=0
failed=0
failures=
child=
work=

leave()
{
	[ -z "$child" ] || kill -KILL "$child" 2>/dev/null
	[ -z "$work" ] || rm -rf --one-file-system "$work"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Testing has no security suite of its own; what is fixed comes by unstable.
fresh_sources()
{
	local at

	at=$(mirror) || { echo "no Debian mirror found; say MIRROR=" >&2; return 1; }
	echo "deb $at $1 main"
	[ "$1" = forky ] || echo "deb ${at%debian/}debian-security/ $1-security main"
}

# Nothing is installed that nothing asks for, and no cluster is made.
fresh_settings='
cd "$1"
echo "APT::Install-Recommends \"false\";" >etc/apt/apt.conf.d/90fresh
echo "Acquire::Check-Valid-Until \"false\";" >>etc/apt/apt.conf.d/90fresh
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/90fresh
mkdir -p etc/postgresql-common
printf "create_main_cluster = false\nlisten_addresses = %s\n" "'\'\''" \
	>etc/postgresql-common/createcluster.conf
'

# fresh_make SUITE: prints its folder.
fresh_make()
{
	local suite=$1 folder=$SYSTEMS/fresh-$1 sources recipe

	sources=$(fresh_sources "$suite") || return 1
	recipe=$(echo "$sources$fresh_settings" | sha256sum | cut -c 1-16)
	if [ "$(cat "$folder/recipe" 2>/dev/null)" != "$recipe" ]; then
		mkdir -p "$SYSTEMS"
		printf '#!/bin/sh\n%s\n' "$fresh_settings" >"$work/settings" && chmod 755 "$work/settings"
		rm -rf --one-file-system "$folder" "$folder.new"
		unshare --mount mmdebstrap --quiet --variant=apt --mode=root \
			--aptopt='Acquire::Check-Valid-Until "false"' \
			--dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/man/*' \
			--customize-hook="$work/settings" "$suite" "$folder.new" - <<<"$sources" >&2 &&
			echo "$recipe" >"$folder.new/recipe" && mv "$folder.new" "$folder" || return 1
	fi
	mkdir -p "$folder.debs/partial"
	echo "$folder"
}

# In a new namespace for mounts and processes: FOLDER with $upper above it, the shared folder
# at /mnt; then inside.sh with the other arguments.
enter_copy='
set -e
base=$1 upper=$2 shared=$3
shift 3
mkdir -p "$upper/over" "$upper/aside" "$upper/root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$upper/over,workdir=$upper/aside" \
	"$upper/root"
root=$upper/root
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for device in null zero full random urandom tty; do
	touch "$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount --bind "$base.debs" "$root/var/cache/apt/archives"
mount --bind "$shared" "$root/mnt"
mkdir -p "$root/run/lock"
# Packages start no server.
printf "#!/bin/sh\nexit 101\n" >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
chmod 1777 "$root/tmp" "$root/dev/shm" "$root/run/lock"
cat /etc/resolv.conf >"$root/etc/resolv.conf"
cat /etc/hosts >"$root/etc/hosts"
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive \
	bash /mnt/inside.sh "$@"
'

# in_copy SUITE WHAT...: run inside.sh WHAT in a copy of the fresh system.
in_copy()
{
	local base=$SYSTEMS/fresh-$1 upper status

	upper=$(mktemp -d "$work/copy.XXXXXX")
	unshare --mount --pid --fork --kill-child --ipc bash -c "$enter_copy" enter "$base" "$upper" \
		"$shared" "${@:2}" >"$work/log" 2>&1 </dev/null &
	child=$!
	wait $child
	status=$?
	child=
	rm -rf --one-file-system "$upper"
	return $status
}

# check WHAT COMMAND...
check()
{
	local what=$1 began=$SECONDS

	shift
	if "$@"; then
		printf 'ok      %s (%d s)\n' "$what" $((SECONDS - began))
		passed=$((passed + 1))
	else
		printf 'FAILED  %s\n' "$what"
		tail -n 60 "$work/log"
		failed=$((failed + 1))
		failures+="failed: $what"$'\n'
		return 1
	fi
}

test_deb()
{
	check "$1: make deb builds packages that lintian finds nothing in" in_copy "$1" build_deb &&
		check "$1: the packages end with a deleted key, by autopkgtest" in_copy "$1" use_deb &&
		check "$1: and load into the oldest minor release that Debian has" in_copy "$1" old_minor
}

test_source()
{
	check "$1: the README's installation ends with a deleted key" in_copy "$1" source &&
		check "$1: make says what a build without pkg-config can't do" in_copy "$1" without_tls
}

test_pgxn()
{
	check "$1: pgxnclient installs, loads and checks the archive of make dist" in_copy "$1" pgxn
}

if [ "$(id -u)" -ne 0 ]; then
	echo "make test-packages makes systems of its own, which needs root" >&2
	exit 1
fi
bash "$SOURCE/test/lib/packages.sh" systems || exit 1
# Where there is no repository there is nothing to make an archive of.
git -C "$SOURCE" -c safe.directory='*' rev-parse HEAD >/dev/null 2>&1 ||
	{ echo "this needs git and the repository"; exit 77; }
work=$(mktemp -d /var/tmp/uncache-packages.XXXXXX)

for suite in ${SUITES:-bookworm trixie forky}; do
	shared=$work/$suite
	mkdir "$shared"
	cp "$SOURCE/test/packages/inside.sh" "$shared" &&
		sh "$SOURCE/debian/source.sh" "$shared" >"$shared/tree" &&
		DIST=$shared sh "$SOURCE/test/packages/dist.sh" >/dev/null || exit 1
	if ! fresh_make "$suite" >/dev/null; then
		echo "a fresh $suite can't be made here"
		exit 77
	fi
	for way in ${WAYS:-deb source pgxn}; do
		test_"$way" "$suite"
	done
done
printf '%s' "$failures"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
