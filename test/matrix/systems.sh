# systems.sh: throw-away systems with other majors of PostgreSQL.  To be sourced
# by bash, as root.
#
# Model: a system is a folder, $SYSTEMS/SUITE, with a small Debian of that suite,
# made by mmdebstrap in about a minute from the machine's own mirror, and kept
# for the next time.  To enter it is to have namespaces of its own for mounts,
# processes, network and shared memory, so that nothing in it can be seen from
# outside, no port can be taken, and nothing is left running.
#
# Failure: a system is made under another name and renamed when it is complete,
# so that one of which the making was interrupted is never used.  What is mounted
# is gone with the last process.  A system whose recipe is no longer this file's
# is made anew.
#
# Limits: packages grow old; `make test-matrix-clean` makes the next run fetch
# today's.  About 1 GB a system.

SYSTEMS=${SYSTEMS:-/var/tmp/uncache-systems}

# Debian's suite that has the major as its own, or soon will.
suite_of()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo forky ;;
		19) echo sid ;;
		*) return 1 ;;
	esac
}

# Where this machine gets its packages from.
mirror()
{
	[ -n "${MIRROR:-}" ] && echo "$MIRROR" && return
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
		grep -m 1 -E '/debian/?$'
}

sources_of()
{
	local at

	at=$(mirror) || { echo "no Debian mirror found; say MIRROR=" >&2; return 1; }
	echo "deb $at $1 main"
	[ "$1" = sid ] && echo "deb $at experimental main"
	return 0
}

packages_of()
{
	echo "postgresql-$1 libpq-dev gcc libc6-dev clang make pkg-config libhiredis-dev" \
		"libc-ares-dev libssl-dev" \
		"redis-tools valkey-tools openssl procps iproute2 nftables ca-certificates" \
		"perl libipc-run-perl libtap-parser-sourcehandler-pgtap-perl"
}

# The newest PostgreSQL and Redis lie in experimental, beside much that is not wanted.
preferences='Package: postgresql* libpq* redis*
Pin: release a=experimental
Pin-Priority: 500'

#
# Run in the new system, once its packages are there.  The server's headers come
# without what they depend on, which is all of LLVM.  A major that is not out yet
# has no pgTAP of its own; it is a script, so that another's does.
#
finish='
set -e
cd /tmp
fetch()
{
	apt-get -qq download "$1"
	dpkg -x "$1"_*.deb /
	rm "$1"_*.deb
}
apt-get -qq update
fetch postgresql-server-dev-$1
pgtap=$(apt-cache pkgnames postgresql- | grep -E "^postgresql-[0-9]+-pgtap$" | sort -rV | head -n 1)
if apt-cache show postgresql-$1-pgtap >/dev/null 2>&1; then
	pgtap=postgresql-$1-pgtap
fi
fetch $pgtap
for file in /usr/share/postgresql/*/extension/pgtap*; do
	[ -e /usr/share/postgresql/$1/extension/${file##*/} ] ||
			cp $file /usr/share/postgresql/$1/extension/
done
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
'

recipe_of()
{
	{
		packages_of "$1"
		suite_of "$1"
		echo "$preferences$finish"
	} | sha256sum | cut -c 1-16
}

# system_make MAJOR: make the system, unless it is there.  Prints its folder.
system_make()
{
	local major=$1 suite folder sources

	if ! suite=$(suite_of "$major"); then
		echo "no Debian suite known that has PostgreSQL $major" >&2
		return 1
	fi
	folder=$SYSTEMS/$suite
	if [ "$(cat "$folder/recipe" 2>/dev/null)" != "$(recipe_of "$major")" ]; then
		sources=$(sources_of "$suite") || return 1
		rm -rf --one-file-system "$folder" "$folder.new"
		mkdir -p "$SYSTEMS" && system_fetch "$major" "$suite" "$folder.new" <<<"$sources" >&2 &&
			recipe_of "$major" >"$folder.new/recipe" &&
			mv "$folder.new" "$folder" || return 1
	fi
	echo "$folder"
}

# Sources come by standard input.  A testing suite's lists may be past their date.
# Should it be killed, what it has mounted is gone with it.
system_fetch()
{
	local major=$1 suite=$2 folder=$3

	UNCACHE_PREFERENCES=$preferences UNCACHE_FINISH=$finish UNCACHE_MAJOR=$major \
		unshare --mount mmdebstrap --quiet --variant=apt --mode=root \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--setup-hook='mkdir -p "$1/etc/apt/preferences.d"' \
		--setup-hook='mkdir -p "$1/etc/postgresql-common/createcluster.d"' \
		--setup-hook='echo "$UNCACHE_PREFERENCES" >"$1/etc/apt/preferences.d/experimental"' \
		--setup-hook='cd "$1/etc/postgresql-common/createcluster.d" &&
			echo "create_main_cluster = false" >none.conf' \
		--include="$(packages_of "$major")" \
		--customize-hook='chroot "$1" sh -c "$UNCACHE_FINISH" finish "$UNCACHE_MAJOR"' \
		"$suite" "$folder" -
}

#
# system_run FOLDER COMMAND...: run a command there, with this source tree at
# /mnt, read-only.  Becomes the command; everything in it ends with it.
#
system_run()
{
	exec unshare --mount --pid --fork --kill-child --net --ipc bash -c "$enter" enter "$SOURCE" "$@"
}

enter='
set -e
source=$1
root=$2
shift 2
ip link set lo up
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
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
mount --bind "$source" "$root/mnt"
mount -o remount,bind,ro "$root/mnt"
chmod 1777 "$root/tmp" "$root/dev/shm"
echo "127.0.0.1 localhost" >"$root/etc/hosts"
exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	HOME=/root LC_ALL=C.UTF-8 TERM=dumb "$@"
'

#
# Valkey for this machine itself, where its own Debian has it only in backports:
# unpacked beside the systems, not installed.  Prints the program.
#
valkey_of_backports()
{
	local at suite folder=$SYSTEMS/valkey get signed

	if [ ! -x "$folder/usr/bin/valkey-check-rdb" ]; then
		at=$(mirror) && suite=$(. /etc/os-release && echo "$VERSION_CODENAME") || return 1
		rm -rf "$folder"
		mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
		signed=/usr/share/keyrings/debian-archive-keyring.gpg
		echo "deb [signed-by=$signed] $at $suite-backports main" >"$folder/apt/sources"
		get="apt-get -qq -o Dir::Etc::SourceList=$folder/apt/sources"
		get+=" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$folder/apt/lists"
		get+=" -o Dir::Cache=$folder/apt -o APT::Sandbox::User=root"
		(cd "$folder" && $get update && $get download valkey-tools &&
			dpkg -x valkey-tools_*.deb .) >&2 || return 1
		rm -rf "$folder/apt"
	fi
	echo "$folder/usr/bin/valkey-check-rdb"
}

systems_clean()
{
	rm -rf --one-file-system "${SYSTEMS:?}"
}
