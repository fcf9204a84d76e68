/*
 * shim.c
 *	  The few functions of the server that the files under test call, for
 *	  programs that are not the server.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/time.h>

#include "storage/fd.h"
#include "utils/timestamp.h"

#include "shim.h"

#undef vsnprintf
#undef strerror

int			shim_external_fds = 0;
bool		shim_refuse_fds = false;

TimestampTz
GetCurrentTimestamp(void)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	return ((TimestampTz) tv.tv_sec -
			(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) * USECS_PER_SEC + tv.tv_usec;
}

bool
AcquireExternalFD(void)
{
	if (shim_refuse_fds)
	{
		errno = EMFILE;
		return false;
	}
	shim_external_fds++;
	return true;
}

void
ReserveExternalFD(void)
{
	shim_external_fds++;
}

void
ReleaseExternalFD(void)
{
	shim_external_fds--;
}

bool
pg_set_noblock(pgsocket sock)
{
	int			flags = fcntl(sock, F_GETFL);

	return flags >= 0 && fcntl(sock, F_SETFL, flags | O_NONBLOCK) == 0;
}

int
pg_vsnprintf(char *str, size_t count, const char *fmt, va_list args)
{
	return vsnprintf(str, count, fmt, args);
}

int
pg_snprintf(char *str, size_t count, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(str, count, fmt, args);
	va_end(args);
	return len;
}

char *
pg_strerror(int errnum)
{
	return strerror(errnum);
}

#if !HAVE_DECL_STRLCPY
size_t
strlcpy(char *dst, const char *src, size_t siz)
{
	size_t		len = strlen(src);

	if (siz > 0)
	{
		size_t		n = Min(len, siz - 1);

		memcpy(dst, src, n);
		dst[n] = '\0';
	}
	return len;
}
#endif
