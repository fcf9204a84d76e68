#!/bin/bash
#
# layers.sh: every layer of the tests, in the folder that private.sh made.
#
# TESTS names TAP files by number, by the beginning of a name, by folder or by path.
#
# Each layer writes a log; the log of a layer that failed is printed.  The last
# line is "N passed, N failed" over all layers.  A layer that ran nothing, or
# that ended badly without naming a test, counts as one failure.

set -u
. "$(dirname "$0")/lib/servers.sh"
cd "$PRIVATE/src" || exit 1

passed=0
failed=0
failures=
pgxs=$(dirname "$(pg_config --pgxs)")/../..

# Both forms that pg_regress has had: "test x ... ok" and, from 16 on, TAP.
count_regress()
{
	ok=$(grep -cE '^(ok [0-9]+ |(test)? .*\.\.\. ok )' "$1")
	bad=$(grep -cE '^(not ok [0-9]+ |(test)? .*\.\.\. FAILED )' "$1")
}

# Top-level TAP lines; what was skipped has not passed.
count_tap()
{
	ok=$(grep -E '^ok [0-9]+' "$1" | grep -vciE '# *skip')
	bad=$(grep -E '^not ok [0-9]+' "$1" | grep -vciE '# *todo')
}

# layer NAME COUNTER: run layer_NAME and count what its log says.
layer()
{
	run "$1"
	finish "$1" "$2"
}

wanted()
{
	[[ " ${LAYERS:-tidy unit model regress isolation pgtap tap faults} " == *" $1 "* ]]
}

# run NAME: run layer_NAME, and leave its exit code and its seconds beside its log.
run()
{
	local started=$SECONDS

	wanted "$1" || return 0
	"layer_$1" >"$PRIVATE/$1.log" 2>&1
	echo $? $((SECONDS - started)) >"$PRIVATE/$1.status"
}

# finish NAME COUNTER: count what the log of a layer that has run says.
finish()
{
	local name=$1 log=$PRIVATE/$1.log status seconds ok bad

	wanted "$name" || return 0
	read -r status seconds <"$PRIVATE/$name.status"
	"count_$2" "$log"
	[ $((ok + bad)) -gt 0 ] || echo "# the layer $name ran nothing" >>"$log"
	if [ $bad -eq 0 ] && { [ $status -ne 0 ] || [ $ok -eq 0 ]; }; then
		bad=1
	fi
	printf '%-10s %4d passed, %d failed  (%d s)\n' "$name" "$ok" "$bad" "$seconds"
	[ $bad -eq 0 ] || print_failure "$name" "$log"
	passed=$((passed + ok))
	failed=$((failed + bad))
}

print_failure()
{
	local file

	failures+=$(grep -hE -A 1 \
		'^# *Failed test|^not ok [0-9]+ |\.\.\. FAILED|No plan found|exited [1-9]' "$2" |
		grep -vE '^--$|^ok ' | sed "s/^/failed: $1: /" | head -n 40)$'\n'
	echo "---- $1"
	# Each failure with what it says, then the end, in which the summary is.
	grep -A 15 '^# *Failed test' "$2" | grep -v '^ok ' | head -n 400
	echo "---- the end of it"
	grep -v '^ok ' "$2" | tail -n 60
	for file in regression.diffs output_iso/regression.diffs; do
		[ -s $file ] && tail -n 400 $file && rm $file
	done
	case $1 in
		regress | isolation | pgtap)
			echo "---- end of the server's log"
			tail -n 60 "$PRIVATE/postgres.log" ;;
		tap | faults)
			for file in \
				$(sed -nE 's,^test/t/.*/(.*)\.t +\(Wstat.*,tmp_check/log/regress_log_\1,p' "$2") \
				$(grep -lE 'PANIC:|TRAP:' tmp_check/log/regress_log_* 2>/dev/null); do
				echo "---- $file"
				tail -n 60 "$file"
			done ;;
	esac
	echo "---- end of $1"
}

# The habits of the tree, and the check of them.
layer_tidy()
{
	prove --verbose test/tidy/tidy_test.t test/tidy/tidy.pl test/tidy/errors.t \
		test/tidy/publish.t test/tidy/indent.t
}

layer_unit()
{
	make -s -C test/unit PROVE="prove --verbose" $UNCACHE_UNIT check
}

# The Redis functions of the fence, in every order of small cases.  It computes, while the TAP
# files mostly wait: it runs beside them.
layer_model()
{
	nice prove --verbose --timer test/model/*.t
}

layer_regress()
{
	make -s installcheck ISOLATION=
}

layer_isolation()
{
	make -s installcheck REGRESS=
}

layer_pgtap()
{
	local files=(test/pgtap/*.sql)

	[ -e "${files[0]}" ] || return 1
	createdb pgtap &&
		psql -XqAt -v ON_ERROR_STOP=1 -d pgtap \
			-c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION pg_uncache' &&
		pg_prove --verbose -d pgtap "${files[@]}"
}

# The TAP files that TESTS names; all, where it is empty, with the long ones first, so that
# none runs alone in the end.
tap_files()
{
	local word found

	[ -n "${TESTS:-}" ] ||
		{ ls test/t/load/*.t test/t/topology/*.t && ls test/t/*/*.t; } | awk '!seen[$0]++'
	for word in ${TESTS:-}; do
		found=$(ls -d $word $word/*.t test/t/$word/*.t test/t/*/${word##*/}* 2>/dev/null |
			grep -E '^test/t/.*\.t$' | sort -u)
		[ -n "$found" ] || { echo "no TAP file is named $word" >&2; return 1; }
		echo "$found"
	done
}

# run_tap FILE...: two for each processor at a time, since most of their time they wait.
run_tap()
{
	[ $# -gt 0 ] || return 1
	mkdir -p tmp_check
	TESTDIR=$PWD TESTDATADIR=$PWD/tmp_check TESTLOGDIR=$PWD/tmp_check/log \
		PG_REGRESS=$pgxs/src/test/regress/pg_regress \
		PERL5LIB=$pgxs/src/test/perl:$PWD/test/lib \
		prove --verbose --timer --jobs "${JOBS:-$((2 * $(nproc)))}" "$@"
}

layer_tap()
{
	local files

	files=$(tap_files) && run_tap $(grep -L has_fault_points $files)
}

# These need a library in which things can be made to go wrong.  It takes the
# place of the one that everything else was tested with, so they come last.
layer_faults()
{
	local files

	files=$(tap_files) && files=$(grep -l has_fault_points $files) || return 1
	make -s clean &&
		make -s -j2 with_llvm=no FAULT_POINTS=1 COPT="$UNCACHE_COPT" install >&2 &&
		run_tap $files
}

layer tidy tap
layer unit tap

# The next three share one server, without a port and with an empty Redis.
redis_start || exit 1
postgres_start "max_prepared_transactions = 10" || exit 1
layer regress regress
layer isolation regress
layer pgtap tap
postgres_stop
redis_kill
run model &
layer tap tap
wait $!
finish model tap
layer faults tap

# Once more, where somebody who sees only the end of the output finds it.
printf '%s' "$failures"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
