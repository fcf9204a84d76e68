# lib.sh: how the lines of run's plan are done.  To be sourced by it, in the top folder.
#
# Model: each line of the plan prints what came of it and adds to the counters; count_all
# prints what failed and what was left out once more, then the sum.
#
# Exit code 77 of a command is for what can't be had on this machine: its line is left out,
# and that is said.

. test/lib/find.sh
exec </dev/null

log=$(mktemp)
build=$(mktemp -d)
trap 'rm -rf "$log" "$build"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0
failed=0
failures=
left_out=

install_packages()
{
	bash test/lib/packages.sh ci || failed=$((failed + 1))
}

leave_out()						# leave_out WHAT LINES: the last lines of the log say why
{
	printf 'LEFT OUT: %s\n' "$1"
	tail -n "$2" "$log" | sed 's/^/        /'
	left_out+="left out: $1"$'\n'
}

check()							# check WHAT COMMAND...
{
	local what=$1

	shift
	"$@" >"$log" 2>&1
	case $? in
		0)
			printf 'ok      %s\n' "$what"
			passed=$((passed + 1)) ;;
		77)
			leave_out "$what" 1 ;;
		*)
			printf 'FAILED  %s\n' "$what"
			cat "$log"
			failed=$((failed + 1))
			failures+="failed: $what"$'\n' ;;
	esac
}

# In a copy, since objects of another compiler would be taken for ours.
copy()
{
	rm -rf "${build:?}/"*
	tar --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' -cf - . |
		tar -C "$build" -xf -
}

# PostgreSQL's own flags, which come with it, may be meant for another compiler.
build_with()					# build_with COMPILER [MAKE'S ARGUMENT]...
{
	local flags=-Werror

	[ "$1" != clang ] || flags+=' -Wno-ignored-optimization-argument -Wno-ignored-attributes'
	[ "$1" != clang ] || flags+=' -Wno-unknown-warning-option'
	copy && make -s -C "$build" -j2 CC="$1" COPT="$flags" with_llvm=no \
		PG_CONFIG="$(find_pg_config)" "${@:2}"
}

fuzz()
{
	copy && PG_CONFIG=$(find_pg_config) "$build/test/fuzz/run" 20
}

packages()
{
	SUITES=bookworm WAYS=deb timeout -k 30 900 bash test/packages/run.sh
}

staleness()
{
	RESULTS=$build STRATEGIES="6 7" SESSIONS=20 SECONDS_EACH=10 bash bench/staleness/run.sh
}

# Its own closing line is counted, not repeated: the last line is this script's.
run_tests()						# run_tests COMMAND...
{
	local line status omitted

	"$@" 2>&1 | tee "$log" | grep --line-buffered -vE '^[0-9]+ passed, [0-9]+ failed$'
	status=${PIPESTATUS[0]}
	# Its time was over, as `timeout` says: nothing is known but of what had ended.
	if [ $status -eq 124 ] || [ $status -eq 137 ]; then
		failures+=$(grep '^failed: ' "$log")
		failed=$((failed +
			$(grep -cE '^FAILED |^[a-z]+ +[0-9]+ passed, [1-9][0-9]* failed' "$log")))
		return 124
	fi
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
	failures+=$(grep '^failed: ' "$log")${line:+$'\n'}
	omitted=$(sed -n 's/^LEFT OUT: /left out: /p' "$log")
	left_out+=${omitted:+$omitted$'\n'}
	if [ -z "$line" ]; then
		failed=$((failed + 1))
		failures+="failed: '$*' came to no end"$'\n'
		return
	fi
	passed=$((passed + ${line%% *}))
	line=${line#*, }
	failed=$((failed + ${line%% *}))
}

# Another major has a system of its own, made of what Debian has today: where that fails, by
# its mirror or by a suite that is broken at the moment, the major is left out; once the
# system works, whatever fails in it counts.  At a low priority, and with an end: none is
# begun when the time is over, and one that a slow machine has not finished an hour after the
# beginning of the whole is left out, too.
majors_have_minutes()			# majors_have_minutes MINUTES
{
	majors_end=$((SECONDS + $1 * 60))
	[ $majors_end -lt 3300 ] || majors_end=3300
}

on_major()						# on_major MAJOR SERVER...
{
	local what="the tests on PostgreSQL $1" left=$((majors_end - SECONDS))
	export MAJORS=$1 SERVERS="${*:2}"

	if [ $left -lt 300 ]; then
		echo "the other majors have taken their time" >"$log"
		leave_out "$what" 1
	elif ! timeout -k 30 $((left < 900 ? left : 900)) \
		bash test/matrix/run.sh prepare >"$log" 2>&1; then
		leave_out "$what: a system for it can't be made or entered here, or does not work" 10
	else
		run_tests timeout -k 30 $((3600 - SECONDS)) nice \
			env LAYERS="builds unit model regress isolation pgtap tap" TESTS="$few_tests" \
			bash test/matrix/run.sh
		[ $? -ne 124 ] || leave_out "$what: this machine is too slow for them" 1
	fi
}

# Ends the script: 0 where nothing failed.
count_all()
{
	printf '%s' "$failures$left_out"
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ]
	exit $?
}
