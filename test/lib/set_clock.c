/*
 * set_clock.c
 *	  To be preloaded into a server (LD_PRELOAD): its time of day is off by as many
 *	  seconds as the file named by CLOCK_FILE says at that moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

static long
seconds_off(void)
{
	FILE	   *file = fopen(getenv("CLOCK_FILE"), "r");
	long		seconds = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%ld", &seconds) != 1)
		seconds = 0;
	fclose(file);
	return seconds;
}

int
gettimeofday(struct timeval *tv, void *tz)
{
	int			(*real) (struct timeval *, void *) =
		(int (*) (struct timeval *, void *)) dlsym(RTLD_NEXT, "gettimeofday");
	int			result = real(tv, tz);

	tv->tv_sec += seconds_off();
	return result;
}
