/*
 * log_text.c
 *	  Text of others, made fit for the log and for views.
 *
 * A message that repeats words of Redis or of the system is cut to fit its place.  Cut
 * by a precision of "%s" they could end within a character, and half a character makes the
 * text around it unreadable; so the message takes them from log_text_cut().
 *
 * Nothing in here allocates memory or raises an error.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/log_text.h"

void
log_text_copy(char *to, Size size, const char *from)
{
	/* A database without an encoding takes any byte; the log's readers do not. */
	int			encoding = GetDatabaseEncoding() == PG_SQL_ASCII ? PG_UTF8 : GetDatabaseEncoding();
	int			left = strlen(from);
	Size		used = 0;

	Assert(size > 0);
	while (left > 0)
	{
		int			len = pg_encoding_verifymbchar(encoding, from, left);
		bool		valid = len > 0 && (unsigned char) *from >= ' ' && *from != 0x7F;

		/* A character whose end is missing is left out. */
		if (len < 0 && pg_encoding_mblen(encoding, from) > left)
			break;
		len = Max(len, 1);
		if (used + len >= size)
			break;
		if (valid)
			memcpy(to + used, from, len);
		else
			memset(to + used, '?', len);
		used += len;
		from += len;
		left -= len;
	}
	Assert(used < size);
	to[used] = '\0';
}

const char *
log_text_cut(const char *text, Size most)
{
	static char cut[LOG_TEXT_MOST + 1];

	Assert(most <= LOG_TEXT_MOST);
	log_text_copy(cut, most + 1, text);
	return cut;
}
