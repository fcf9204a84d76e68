/*
 * keypattern_fuzz.c
 *	  Any text as a key pattern, as a damaged outbox could give it, or as a glob;
 *	  and any key.
 *
 * The first byte says what the text is, the second how long it is; the rest is the
 * key.
 */
#include "postgres.h"

#include "template/keypattern.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* What Redis finds with the glob must hold every key that the pattern covers. */
static void
check_pattern(const KeyPattern *pattern, size_t textlen, const char *key, size_t keylen)
{
	const char *glob = keypattern_glob(pattern);
	size_t		headlen;
	const char *head = keypattern_literal_head(pattern, &headlen);

	if (strlen(glob) > 2 * textlen || headlen > textlen)
		abort();
	if (!keypattern_matches(pattern, key, keylen))
		return;
	if (!keypattern_match_glob(glob, strlen(glob), key, keylen) ||
		keylen < headlen || memcmp(key, head, headlen) != 0)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	bool		is_glob;
	size_t		textlen;
	char	   *text;
	char	   *key;
	size_t		keylen;
	KeyPattern *pattern;

	if (size < 2)
		return 0;
	is_glob = data[0] & 1;
	textlen = Min((size_t) data[1], size - 2);
	keylen = size - 2 - textlen;

	/* Of their exact sizes, so that reading too far is noticed. */
	text = malloc(textlen);
	key = malloc(keylen);
	memcpy(text, data + 2, textlen);
	memcpy(key, data + 2 + textlen, keylen);

	pattern = is_glob ? keypattern_from_glob(text, textlen) : keypattern_parse(text, textlen);
	if (pattern != NULL)
		check_pattern(pattern, textlen, key, keylen);
	else if (is_glob && memchr(text, '\0', textlen) == NULL)
		abort();
	(void) keypattern_match_glob(text, textlen, key, keylen);
	keypattern_free(pattern);
	free(text);
	free(key);
	return 0;
}
