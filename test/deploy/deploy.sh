#!/bin/bash
#
# deploy.sh: run the tests of this folder and count.  The last line is "N passed, N failed".
#
# Each test starts what it needs in a folder of its own, prints TAP without numbers, and ends what
# it has started; what stays is ended by private.sh.

set -u
export HERE=$PRIVATE/src/test/deploy PGUSER=postgres
passed=0
failed=0
failures=

for test in patroni tools backup; do
	[ -z "${TESTS:-}" ] || [[ " $TESTS " == *" $test "* ]] || continue
	echo "# $test"
	log=$PRIVATE/$test.log
	mkdir -p "$PRIVATE/$test"
	(cd "$PRIVATE/$test" && timeout 600 /usr/bin/python3 "$HERE/${test}_test.py") 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	ok=$(grep -c '^ok ' "$log")
	bad=$(grep -c '^not ok ' "$log")
	if [ $status -ne 0 ] || [ $ok -eq 0 ]; then
		echo "not ok - $test ended with code $status" | tee -a "$log"
		bad=$((bad + 1))
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	failures+=$(sed -n "s/^not ok - /failed: $test: /p" "$log")$'\n'
done
printf '%s' "$failures" | sed '/^$/d'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
