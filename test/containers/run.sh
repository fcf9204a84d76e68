#!/bin/bash
#
# run.sh: what `make test-containers` runs: deploy/docker and deploy/cloudnative-pg, as root, in
# Debian.
#
#	SUITES="bookworm trixie"	build and run the server's image on these only
#	SYSTEMS=/folder				where the bases are kept; as for make test-matrix
#
# Model: official images can't be had on every machine, so the base of the Dockerfile is made by
# mmdebstrap: a small Debian with PostgreSQL and nothing else, which is what the official ones
# are.  buildah, without a daemon, builds both targets on it.
#   server: in a container of the image a cluster is made, CREATE EXTENSION, a rule, an UPDATE; the
#   key must be gone from a Redis outside, whose socket is mounted there.
#   extension: laid out as CloudNativePG mounts it, below a PostgreSQL 18 that has neither the
#   extension nor hiredis, with the settings that the operator makes from cluster.yaml.
# The manifests and compose.yaml are held against schemas (lint.py).
#
# Limits: no Kubernetes and no daemon of Docker: what the operator and compose do with the
# files is not tested.  Exit code 77: this machine can't do it.

set -u
SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
. "$SOURCE/test/lib/find.sh"
. "$SOURCE/test/matrix/systems.sh"
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
here=$SOURCE/test/containers
bases=$SYSTEMS/containers
passed=0
failed=0
failures=
redis=

leave_out()
{
	echo "$*"
	exit 77
}

[ "$(id -u)" -eq 0 ] || leave_out "the container tests need root"
bash "$SOURCE/test/lib/packages.sh" containers || leave_out "no buildah, mmdebstrap or linters here"

work=$(mktemp -d /var/tmp/uncache-containers.XXXXXX) || exit 1
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The containers' files lie below $work alone.
b()
{
	buildah --root "$work/storage" --runroot "$work/run" "$@"
}

leave()
{
	[ -z "$redis" ] || kill "$redis" 2>/dev/null
	b rm --all >/dev/null 2>&1
	[ -z "${KEEP:-}" ] || { echo "kept: $work"; return; }
	rm -rf --one-file-system "$work"
}

# check WHAT COMMAND...: run it, count it, show what it said if it failed.
check()
{
	local what=$1

	shift
	if "$@" >"$work/log" 2>&1; then
		echo "ok - $what"
		passed=$((passed + 1))
	else
		echo "not ok - $what"
		tail -n 40 "$work/log" | sed 's/^/# /'
		failed=$((failed + 1))
		failures+="failed: $what"$'\n'
		return 1
	fi
}

# base SUITE MAJOR: make the image localhost/base:MAJOR.  Its file system is kept.
base()
{
	local suite=$1 major=$2 container

	if [ ! -e "$bases/$suite-$major.tar" ]; then
		mkdir -p "$bases"
		sources_of "$suite" | unshare --mount mmdebstrap --quiet --variant=apt --mode=root \
			--aptopt='Acquire::Check-Valid-Until "false"' \
			--aptopt='APT::Install-Recommends "false"' \
			--setup-hook='mkdir -p "$1/etc/postgresql-common/createcluster.d"' \
			--setup-hook='echo "create_main_cluster = false" \
				>"$1/etc/postgresql-common/createcluster.d/none.conf"' \
			--include="postgresql-$major ca-certificates" \
			"$suite" "$bases/$suite-$major.new.tar" - &&
			mv "$bases/$suite-$major.new.tar" "$bases/$suite-$major.tar" || return 1
	fi
	container=$(b from scratch) &&
		b add -q "$container" "$bases/$suite-$major.tar" / &&
		b config --env PG_MAJOR="$major" "$container" &&
		b commit -q --rm "$container" "localhost/base:$major"
}

build()							# build TARGET MAJOR
{
	b bud --quiet -f "$SOURCE/deploy/docker/Dockerfile" --target "$1" \
		--build-arg BASE="localhost/base:$2" -t "localhost/$1:$2" "$SOURCE"
}

redis_start()
{
	mkdir "$work/redis"
	chmod 777 "$work/redis"
	"$(find_redis_program)" --port 0 --unixsocket "$work/redis/socket" --unixsocketperm 777 \
		--save '' --requirepass secret --dir "$work/redis" >"$work/redis.log" 2>&1 &
	redis=$!
	await "$(find_redis_cli)" -s "$work/redis/socket" -a secret --no-auth-warning ping
}

await()							# await COMMAND...: until it succeeds, for ten seconds
{
	local i

	for ((i = 0; i < 100; i++)); do
		"$@" 2>/dev/null | grep -q PONG && return 0
		sleep 0.1
	done
	return 1
}

cli()
{
	"$(find_redis_cli)" -s "$work/redis/socket" -a secret --no-auth-warning "$@"
}

inside()						# inside CONTAINER ARGUMENT
{
	b run --user postgres --volume "$work/redis:/redis" --volume "$here:/test:ro" \
		--volume "$SOURCE/deploy/docker:/deploy:ro" \
		--volume "$work/projected:/projected:ro" "$1" -- bash /test/inside.sh "$2"
}

# A key of user 1 is there; the container updates its row; the key is gone.  Others stay.
deletes()						# deletes CONTAINER ARGUMENT
{
	cli mset user:1 one user:2 two >/dev/null
	inside "$@" || return 1
	[ "$(cli exists user:1)" = 0 ] || { echo "user:1 is still there"; return 1; }
	[ "$(cli exists user:2)" = 1 ] || { echo "user:2 is gone"; return 1; }
}

# Nothing that only the building needs.
is_small()						# is_small CONTAINER
{
	b run "$1" -- sh -c '! command -v gcc && ! command -v make && ! test -e /usr/src/pg_uncache'
}

# The image's files, where the operator mounts them, and nothing else of pg_uncache.
lay_out()						# lay_out CONTAINER EXTENSION-CONTAINER NAME
{
	local from to

	from=$(b mount "$2") && to=$(b mount "$1") &&
		mkdir -p "$to/extensions/$3" && cp -r "$from/." "$to/extensions/$3/" &&
		(cd "$from" && find . -type f | sort)
}

has_layout()					# has_layout FILE-WITH-THE-LIST
{
	grep -qx './lib/pg_uncache.so' "$1" && grep -q '^./lib/libhiredis.so' "$1" &&
		grep -qx './share/extension/pg_uncache.control' "$1" &&
		grep -q '^./share/extension/pg_uncache--1.0.sql$' "$1" &&
		! grep -vE '^./(lib/[a-z_]+\.so|share/extension/pg_uncache)[^/]*$' "$1"
}

check "the manifests and compose.yaml are as their schemas want them" python3 "$here/lint.py" \
	"$SOURCE/deploy" "$here"
check "compose.yaml is one that docker-compose reads" docker-compose \
	-f "$SOURCE/deploy/docker/compose.yaml" config -q
check "the YAML is tidy" yamllint -s \
	-d '{extends: default, rules: {line-length: {max: 100}, document-start: disable}}' \
	"$SOURCE"/deploy/docker/*.yaml "$SOURCE"/deploy/cloudnative-pg/*.yaml

redis_start || { cat "$work/redis.log"; exit 1; }
mkdir -p "$work/projected/redis"
echo secret >"$work/projected/redis/password"
# As Kubernetes mounts a secret of mode 0440 for the server's group.
chgrp -R 999 "$work/projected" && chmod 0755 "$work/projected" "$work/projected/redis"
chmod 0444 "$work/projected/redis/password"

for suite in ${SUITES:-bookworm trixie}; do
	major=$(case $suite in bookworm) echo 15 ;; trixie) echo 17 ;; forky) echo 18 ;; esac)
	check "$suite: a base with PostgreSQL $major is made" base "$suite" "$major" || continue
	check "$suite: the server's image is built" build server "$major" || continue
	container=$(b from "localhost/server:$major")
	check "$suite: it has no compiler" is_small "$container"
	check "$suite: CREATE EXTENSION in it, a rule, an UPDATE, and the key is gone" \
		deletes "$container" server
	b rm "$container" >/dev/null
	b rmi --all --force >/dev/null 2>&1
done

if check "forky: a base with PostgreSQL 18 is made" base forky 18 &&
		check "forky: the extension's image is built" build extension 18; then
	extension=$(b from localhost/extension:18)
	container=$(b from localhost/base:18)
	name=$(python3 "$here/lint.py" --extension-name "$SOURCE/deploy/cloudnative-pg/cluster.yaml")
	lay_out "$container" "$extension" "$name" >"$work/files"
	check "the extension's image has the layout of an image volume, and nothing else" \
		has_layout "$work/files" || sed 's/^/# /' "$work/files"
	python3 "$here/lint.py" --settings "$SOURCE/deploy/cloudnative-pg/cluster.yaml" \
		>"$work/projected/settings"
	check "PostgreSQL 18 with the settings of cluster.yaml: the key is gone" \
		deletes "$container" cloudnative-pg
	check "without ld_library_path the server would not start, so the test means something" \
		inside "$container" without-libraries
fi

printf '%s' "$failures"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
