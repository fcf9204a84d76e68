/*
 * glob.c
 *	  Redis's own glob rules: * ? [a-z] [^a] and backslash.
 */
#include "postgres.h"

#include "template/keypattern.h"

/*
 * Match one character against the class that begins behind "[" at *at, and move
 * *at behind its "]".  As in Redis a class that is not closed ends with the glob,
 * and a range may be written backwards.
 */
static bool
glob_class_has(const char *glob, size_t globlen, size_t *at, unsigned char c)
{
	size_t		i = *at;
	bool		negated = i < globlen && glob[i] == '^';
	bool		found = false;

	if (negated)
		i++;
	while (i < globlen && glob[i] != ']')
	{
		unsigned char low;
		unsigned char high;

		if (glob[i] == '\\' && i + 1 < globlen)
		{
			low = high = (unsigned char) glob[i + 1];
			i += 2;
		}
		else if (i + 2 < globlen && glob[i + 1] == '-')
		{
			low = Min((unsigned char) glob[i], (unsigned char) glob[i + 2]);
			high = Max((unsigned char) glob[i], (unsigned char) glob[i + 2]);
			i += 3;
		}
		else
		{
			low = high = (unsigned char) glob[i];
			i++;
		}
		if (c >= low && c <= high)
			found = true;
	}
	*at = i < globlen ? i + 1 : i;
	return found != negated;
}

/* Match one character against the element at *at, which is no star. */
static bool
glob_element_has(const char *glob, size_t globlen, size_t *at, char c)
{
	char		first = glob[(*at)++];

	if (first == '?')
		return true;
	if (first == '[')
		return glob_class_has(glob, globlen, at, (unsigned char) c);
	if (first == '\\' && *at < globlen)
		first = glob[(*at)++];
	return first == c;
}

bool
glob_matches(const char *glob, size_t globlen, const char *key, size_t len)
{
	size_t		g = 0;
	size_t		k = 0;
	size_t		behind_star = 0;	/* 0: no star seen yet */
	size_t		star_key = 0;

	/* Only the last star ever has to be stretched: it can take all that others could. */
	while (k < len)
	{
		if (g < globlen && glob[g] == '*')
		{
			behind_star = ++g;
			star_key = k;
			continue;
		}
		if (g < globlen && glob_element_has(glob, globlen, &g, key[k]))
		{
			k++;
			continue;
		}
		if (behind_star == 0)
			return false;
		g = behind_star;
		k = ++star_key;
	}
	while (g < globlen && glob[g] == '*')
		g++;
	return g == globlen;
}
