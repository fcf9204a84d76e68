/*
 * keypattern.h
 *	  Which keys a template can produce: the text form that travels to the
 *	  worker, the Redis glob that finds candidates, and the exact check.
 *
 * A key pattern is text: literal parts, in which "{" and "}" are doubled, and
 * between them a class in braces that says what may stand there:
 *
 *		{any}					anything, the empty text included
 *		{integer LOW HIGH}		a whole number in this range, without leading zeros;
 *								{integer} has the range of int8
 *		{decimal DIGITS SCALE}	a numeric with at most so many digits before the point,
 *								and exactly so many behind it
 *		{numeric}, {float}, {money}, {boolean}, {uuid}, {bytea}, {bits}, {inet}, {cidr},
 *		{macaddr}, {macaddr8}, {date}, {time}, {timetz}, {timestamp}, {timestamptz},
 *		{json}, {range}, {multirange}, {row}
 *								what values of the type, or of types of that sort, are
 *								written as ({json}: jsonb)
 *		{md5}					32 hexadecimal digits
 *		{=one|other}			one of these texts; a backslash stands before each "|", "\"
 *								and "}" that is part of a text
 *
 * so the template user:{id} with a column of type bigint yields user:{integer}.
 * These functions need nothing of a running server, so that they can be fuzzed.
 */
#ifndef UNCACHE_KEYPATTERN_H
#define UNCACHE_KEYPATTERN_H

#include "postgres.h"

typedef struct KeyPattern KeyPattern;

/*
 * Parse the text form; NULL where it is malformed or memory is short.  Made
 * with malloc.
 */
extern KeyPattern *keypattern_parse(const char *text, size_t len);

/* A key pattern that is a plain Redis glob, from invalidate_pattern(). */
extern KeyPattern *keypattern_from_glob(const char *glob, size_t len);

extern void keypattern_free(KeyPattern *pattern);

/*
 * The glob to give to SCAN MATCH (null-terminated; belongs to the pattern).
 * It finds at least every key that the pattern matches.
 */
extern const char *keypattern_glob(const KeyPattern *pattern);

/* The literal text at its beginning, unescaped, for sharing one SCAN. */
extern const char *keypattern_literal_head(const KeyPattern *pattern, size_t *len);

/*
 * Whether the pattern covers this key.  Time grows with the product of the
 * lengths of key and pattern, never worse.  For one caller at a time.
 */
extern bool keypattern_matches(const KeyPattern *pattern, const char *key, size_t len);

/*
 * What a match costs, about, in units of one byte of the key that is tried with one
 * part of the pattern.
 */
extern int	keypattern_work(const KeyPattern *pattern, size_t len);

/* Whether a glob must have a backslash before this character for it to stand for itself. */
static inline bool
glob_is_special(char c)
{
	return c != '\0' && strchr("*?[]\\", c) != NULL;
}

/* Redis's own glob rules: * ? [a-z] [^a] and backslash. */
extern bool keypattern_match_glob(const char *glob, size_t globlen, const char *key, size_t len);

#endif							/* UNCACHE_KEYPATTERN_H */
