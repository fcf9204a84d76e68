/*
 * tap.h
 *	  Test Anything Protocol, as much of it as the unit tests need.
 */
#ifndef UNCACHE_TEST_TAP_H
#define UNCACHE_TEST_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* PostgreSQL's headers put their own functions in the place of these. */
#undef printf
#undef vprintf
#undef fprintf
#undef sprintf
#undef snprintf
#undef vsnprintf
#undef strerror

static int	tap_count;
static int	tap_failed;

static bool
ok(bool passed, const char *format,...)
{
	va_list		args;

	printf("%sok %d - ", passed ? "" : "not ", ++tap_count);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	if (!passed)
		tap_failed++;
	return passed;
}

static bool
is(const char *got, const char *expected, const char *name)
{
	bool		passed = got == expected || (got && expected && strcmp(got, expected) == 0);

	ok(passed, "%s", name);
	if (!passed)
		printf("# got:      %s\n# expected: %s\n", got ? got : "(NULL)",
			   expected ? expected : "(NULL)");
	return passed;
}

static int
done_testing(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif							/* UNCACHE_TEST_TAP_H */
