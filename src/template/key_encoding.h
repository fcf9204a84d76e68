/*
 * key_encoding.h
 *	  Converting keys between the database's encoding and UTF-8, in which Redis gets them.
 *
 * The encoding of text in an SQL_ASCII database is unknown, so it is not converted.  Both
 * functions return their argument if there is nothing to convert, otherwise palloc'd,
 * null-terminated text.  They raise an ERROR for a character that the other encoding lacks.
 */
#ifndef UNCACHE_KEY_ENCODING_H
#define UNCACHE_KEY_ENCODING_H

#include "mb/pg_wchar.h"

static inline char *
key_to_utf8(char *text, int len)
{
	if (likely(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return text;
	return pg_server_to_any(text, len, PG_UTF8);
}

static inline char *
key_from_utf8(char *text, int len)
{
	if (likely(GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII))
		return text;
	return pg_any_to_server(text, len, PG_UTF8);
}

#endif							/* UNCACHE_KEY_ENCODING_H */
