/*
 * keypattern.h
 *	  Which keys a template can produce: the text form that the outbox holds, the Redis
 *	  glob that finds candidates, and the exact check.
 *
 * A key pattern is text: literal parts, in which "{" and "}" are doubled, and between them
 * classes in braces.  A class names a set of texts, one of which stands there in a key:
 *
 *		{any}					anything, the empty text included
 *		{integer LOW HIGH}		a whole number in this range, without leading zeros;
 *								{integer} has the range of int8
 *		{decimal DIGITS SCALE}	a numeric with at most so many digits before the point,
 *								and exactly so many behind it
 *		{numeric}, {float}, {money}, {boolean}, {uuid}, {bytea}, {bits}, {inet}, {cidr},
 *		{macaddr}, {macaddr8}, {date}, {time}, {timetz}, {timestamp}, {timestamptz},
 *		{json}, {range}, {multirange}, {row}
 *								the text of any value of the type, or of any type of that
 *								sort ({json}: jsonb)
 *		{md5}					32 hexadecimal digits
 *		{=one|other}			one of these texts; a backslash stands before each "|", "\"
 *								and "}" that is part of a text
 *
 * For example, the template user:{id} with a column of type bigint has the key pattern
 * user:{integer}.
 *
 * These functions need nothing of a running server, so unit tests and fuzzers can call them.
 */
#ifndef UNCACHE_KEYPATTERN_H
#define UNCACHE_KEYPATTERN_H

#include "postgres.h"

typedef struct KeyPattern KeyPattern;

/*
 * Parse the text form.  NULL if it is malformed or malloc() fails.  The caller frees the
 * result with keypattern_free().
 */
extern KeyPattern *keypattern_parse(const char *text, size_t len);

/* The same for a plain Redis glob, from invalidate_pattern(). */
extern KeyPattern *keypattern_from_glob(const char *glob, size_t len);

/* NULL is allowed. */
extern void keypattern_free(KeyPattern *pattern);

/*
 * The glob for SCAN MATCH (null-terminated; it belongs to the pattern).  It matches at least
 * every key that the pattern matches.
 */
extern const char *keypattern_glob(const KeyPattern *pattern);

/* The literal text at the pattern's beginning, unescaped: patterns that share it share a SCAN. */
extern const char *keypattern_literal_head(const KeyPattern *pattern, size_t *len);

/*
 * True if the pattern matches this key.  Time grows with the product of the lengths of key
 * and pattern, never faster.  Not reentrant: it uses static memory.
 */
extern bool keypattern_matches(const KeyPattern *pattern, const char *key, size_t len);

/*
 * An estimate of what matching a key of this length costs.  The unit is one byte of the key
 * compared with one part of the pattern.
 */
extern int	keypattern_work(const KeyPattern *pattern, size_t len);

/* True if this character needs a backslash in a glob to stand for itself. */
static inline bool
glob_is_special(char c)
{
	return c != '\0' && strchr("*?[]\\", c) != NULL;
}

/* True if a glob matches a key by Redis's rules: * ? [a-z] [^a] and backslash. */
extern bool keypattern_match_glob(const char *glob, size_t globlen, const char *key, size_t len);

#endif							/* UNCACHE_KEYPATTERN_H */
