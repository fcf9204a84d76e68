/*
 * patternset.c
 *	  The patterns that one pass over the keys of Redis serves.
 *
 * Each is there once, however many transactions asked for it.  Redis is asked only for
 * keys with the text that all of them begin with; whether a key is meant is then
 * looked up in their matchers.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "patternset.h"

static PassPattern *
find_pattern(PatternSet set, const PackedItem *item)
{
	for (PassPattern *p = set; p; p = p->next)
	{
		if (p->item.kind == item->kind && p->item.len == item->len &&
			memcmp(p->item.bytes, item->bytes, item->len) == 0)
			return p;
	}
	return NULL;
}

static KeyPattern *
matcher_of(const PackedItem *item)
{
	switch (item->kind)
	{
		case ITEM_GLOB:
			return keypattern_from_glob(item->bytes, item->len);
		case ITEM_KEYPATTERN:
			return keypattern_parse(item->bytes, item->len);
		case ITEM_KEY:
		case ITEM_FRAGMENT:
			break;				/* no patterns */
	}
	return NULL;
}

PassPattern *
patternset_add(PatternSet *set, const PackedItem *item)
{
	PassPattern *pattern = find_pattern(*set, item);
	KeyPattern *matcher;

	if (pattern)
		return pattern;

	matcher = matcher_of(item);
	if (matcher == NULL)
		return NULL;

	pattern = palloc0(sizeof(PassPattern));
	pattern->item = *item;
	pattern->matcher = matcher;
	pattern->next = *set;
	*set = pattern;
	return pattern;
}

/* A glob for every key that begins with this text. */
static char *
glob_for_head(const char *head, size_t len)
{
	StringInfoData glob;

	initStringInfo(&glob);
	for (size_t i = 0; i < len; i++)
	{
		if (glob_is_special(head[i]))
			appendStringInfoChar(&glob, '\\');
		appendStringInfoChar(&glob, head[i]);
	}
	appendStringInfoChar(&glob, '*');
	return glob.data;
}

/* The pattern itself where it is alone; otherwise what all of them begin with. */
char *
patternset_glob(PatternSet set)
{
	const char *head;
	size_t		len;

	if (set->next == NULL)
		return pstrdup(keypattern_glob(set->matcher));

	head = keypattern_literal_head(set->matcher, &len);
	for (PassPattern *p = set->next; p; p = p->next)
	{
		size_t		other_len;
		const char *other = keypattern_literal_head(p->matcher, &other_len);
		size_t		same = 0;

		while (same < len && same < other_len && head[same] == other[same])
			same++;
		len = same;
	}
	return glob_for_head(head, len);
}

void
patternset_free(PatternSet *set)
{
	for (PassPattern *p = *set; p; p = p->next)
		keypattern_free(p->matcher);
	*set = NULL;
}
