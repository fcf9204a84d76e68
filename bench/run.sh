#!/bin/bash
#
# run.sh: what `make bench` runs.  `bench/run.sh --help` shows the options.
#
# The servers run on the machine's disk, in a temporary folder below TMPDIR or
# /tmp; what was measured is left in bench/results, or in $RESULTS.  With --publish
# it also goes into the documentation; a section that failed is named there.

set -u
. "$(dirname "$0")/../test/lib/private.sh"

case " $* " in
	*" --help "*) PRIVATE=$SOURCE exec perl -I"$SOURCE/bench/lib" "$SOURCE/bench/bench.pl" --help ;;
esac

publish=
options=()
for option; do
	if [ "$option" = --publish ]; then
		publish=yes
		options=(--pattern-keys 10000000 "${options[@]}")
	else
		options+=("$option")
	fi
done

PRIVATE=$SOURCE perl -I"$SOURCE/bench/lib" "$SOURCE/bench/bench.pl" --check "${options[@]}" ||
	exit 2

# The kernel's profiler wants root's rights, which the benches do not have: it is
# run here, for as many seconds as they ask for, with so many samples a second, and with the
# kernel's stacks (fp) or those of user code, too (dwarf).
profiler()						# profiler FILE: for the samples
{
	local samples=$1 ask seconds hertz stacks

	[ "$(id -u)" -eq 0 ] && command -v perf >/dev/null || return
	as_owner mkfifo profile.ask profile.answer
	while read -r ask; do
		if [[ $ask =~ ^[0-9]+\ [0-9]+\ (fp|dwarf)$ ]]; then
			read -r seconds hertz stacks <<<"$ask"
			perf record -q -a -F "$hertz" --call-graph "$stacks" -e cpu-clock -o "$samples" \
				-- sleep "$seconds" >/dev/null 2>&1
		fi
		perf script --no-inline -i "$samples" -F comm,pid,ip,sym,dso 2>/dev/null \
			>"$PRIVATE/profile.answer"
	done <>"$PRIVATE/profile.ask"
}

results=${RESULTS:-$SOURCE/bench/results}
mkdir -p "$results" || exit 1
private_ready build
as_owner mkdir "$PRIVATE/results"
as_owner bash "$PRIVATE/src/bench/peers.sh" "$PRIVATE/pg"
as_owner ln -s "$(command -v redis-benchmark)" "$PRIVATE/bin/redis-benchmark"
# In memory where that can be: the disk is what the writes wait for.
samples=$(mktemp -p /dev/shm 2>/dev/null || mktemp) || exit 1
profiler "$samples" &
profiler=$!
as_owner bash "$PRIVATE/src/bench/servers.sh" "${options[@]}" &
wait $!
status=$?
kill $profiler 2>/dev/null
rm -f "$samples" "$samples.old"		# perf keeps the last one
cp "$PRIVATE"/results/* "$results"/ 2>/dev/null && echo "raw data and picture: $results"
[ -n "$publish" ] && { perl "$SOURCE/bench/publish.pl" "$results" "$SOURCE" || status=1; }
exit $status
