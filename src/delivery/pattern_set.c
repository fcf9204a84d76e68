/*
 * pattern_set.c
 *	  The patterns that one pass over the keys of Redis serves, found by a key's beginning.
 *
 * Each is there once, however many transactions asked for it.  Redis is asked only for
 * keys with the text that all of them begin with; which of them a key may be meant by is
 * looked up by the key's beginning:
 *
 *		heads	a hash table from the literal head of patterns to the patterns
 *		lengths	of these heads, each once, ascending
 *
 * A key has as many beginnings as there are lengths, and each is looked up.  The hash of a
 * beginning goes on from that of a shorter one, so all of them cost one walk over the key.
 * So the cost of a key does not grow with the number of patterns, but with those whose head
 * it has.
 *
 * Adding costs as much as the pattern is long.  Nothing here fails but for want of memory,
 * which ends the worker; its successor reads the patterns from the outbox.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "delivery/pattern_set.h"

/* A text that is not copied, with its hash. */
typedef struct TextKey
{
	const char *bytes;
	size_t		len;
	uint32		hash;
} TextKey;

typedef struct TextEntry
{
	TextKey		key;
	PassPattern *pattern;		/* of heads: the first of those with the same */
} TextEntry;

struct PatternSet
{
	MemoryContext context;
	PassPattern *first;
	int			count;
	HTAB	   *globs;			/* patterns that are globs, by their text */
	HTAB	   *templates;		/* patterns of templates, by their text */
	HTAB	   *heads;
	size_t	   *lengths;
	int			nlengths;
	int			room;
	size_t		common;			/* bytes that all heads begin with; meaningless without any */
	PassPattern **sorted;		/* NULL: not yet */
};

/* FNV-1a: it can be carried on from a beginning to a longer one. */
#define HASH_BEGIN	2166136261U

static uint32
hash_more(uint32 hash, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char) bytes[i]) * 16777619U;
	return hash;
}

static uint32
text_hash(const void *key, Size keysize)
{
	return ((const TextKey *) key)->hash;
}

static int
text_compare(const void *a, const void *b, Size keysize)
{
	const TextKey *one = a;
	const TextKey *other = b;

	return one->len != other->len || memcmp(one->bytes, other->bytes, one->len) != 0;
}

static HTAB *
make_table(void)
{
	HASHCTL		control = {
		.keysize = sizeof(TextKey),
		.entrysize = sizeof(TextEntry),
		.hash = text_hash,
		.match = text_compare,
		.hcxt = CurrentMemoryContext,
	};

	return hash_create("pg_uncache patterns", 256, &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

PatternSet *
pattern_set_make(void)
{
	PatternSet *set = palloc0(sizeof(PatternSet));

	set->context = CurrentMemoryContext;
	set->globs = make_table();
	set->templates = make_table();
	set->heads = make_table();
	return set;
}

int
pattern_set_count(const PatternSet *set)
{
	return set->count;
}

PassPattern *
pattern_set_first(const PatternSet *set)
{
	return set->first;
}

/*
 * --------------------------------------------------------------------------
 * Adding
 * --------------------------------------------------------------------------
 */

static TextEntry *
enter(HTAB *table, const char *bytes, size_t len, bool *found)
{
	TextKey		key = {.bytes = bytes, .len = len, .hash = hash_more(HASH_BEGIN, bytes, len)};
	TextEntry  *entry = hash_search(table, &key, HASH_ENTER, found);

	if (!*found)
		entry->pattern = NULL;
	return entry;
}

/* Keep the lengths ascending; there are few. */
static void
add_length(PatternSet *set, size_t len)
{
	int			i = set->nlengths;

	if (set->nlengths == set->room)
	{
		set->room = set->room ? set->room * 2 : 16;
		set->lengths = set->lengths ? repalloc(set->lengths, set->room * sizeof(size_t)) :
			MemoryContextAlloc(set->context, set->room * sizeof(size_t));
	}
	while (i > 0 && set->lengths[i - 1] > len)
	{
		set->lengths[i] = set->lengths[i - 1];
		i--;
	}
	set->lengths[i] = len;
	set->nlengths++;
}

static bool
has_length(const PatternSet *set, size_t len)
{
	int			low = 0;
	int			high = set->nlengths;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (set->lengths[middle] == len)
			return true;
		if (set->lengths[middle] < len)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

static void
narrow_common(PatternSet *set, const char *head, size_t len)
{
	size_t		first_len;
	const char *first = keypattern_literal_head(set->first->matcher, &first_len);
	size_t		same = 0;

	Assert(set->first != NULL && set->common <= first_len);
	while (same < set->common && same < len && head[same] == first[same])
		same++;
	set->common = same;
}

static void
add_head(PatternSet *set, PassPattern *pattern)
{
	size_t		len;
	const char *head = keypattern_literal_head(pattern->matcher, &len);
	bool		found;
	TextEntry  *entry = enter(set->heads, head, len, &found);

	pattern->next_of_head = entry->pattern;
	entry->pattern = pattern;
	if (!found && !has_length(set, len))
		add_length(set, len);
	if (set->first == NULL)
		set->common = len;
	else
		narrow_common(set, head, len);
}

static KeyPattern *
matcher_of(const Invalidation *item)
{
	switch (item->kind)
	{
		case INVALIDATION_GLOB:
			return keypattern_from_glob(item->bytes, item->len);
		case INVALIDATION_KEYPATTERN:
			return keypattern_parse(item->bytes, item->len);
		case INVALIDATION_KEY:
		case INVALIDATION_FRAGMENT:
			break;				/* no patterns */
	}
	return NULL;
}

PassPattern *
pattern_set_add(PatternSet *set, const Invalidation *item)
{
	HTAB	   *table = item->kind == INVALIDATION_GLOB ? set->globs : set->templates;
	bool		found;
	TextEntry  *entry = enter(table, item->bytes, item->len, &found);
	PassPattern *pattern;
	KeyPattern *matcher;

	Assert(invalidation_traits(item->kind)->keys == INVALIDATION_KEYS_FOUND);
	if (found)
		return entry->pattern;
	Assert(set->sorted == NULL);
	matcher = matcher_of(item);
	if (matcher == NULL)
	{
		hash_search_with_hash_value(table, &entry->key, entry->key.hash, HASH_REMOVE, NULL);
		return NULL;
	}

	pattern = MemoryContextAllocZero(set->context, sizeof(PassPattern));
	pattern->item = *item;
	pattern->matcher = matcher;
	add_head(set, pattern);
	pattern->next = set->first;
	set->first = pattern;
	set->count++;
	entry->pattern = pattern;
	return pattern;
}

/*
 * --------------------------------------------------------------------------
 * Arguments of SCAN
 * --------------------------------------------------------------------------
 */

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

/* The pattern itself where it is alone; otherwise the text that all of them begin with. */
char *
pattern_set_glob(const PatternSet *set)
{
	size_t		len;
	const char *head = keypattern_literal_head(set->first->matcher, &len);

	if (set->count == 1)
		return pstrdup(keypattern_glob(set->first->matcher));
	return glob_for_head(head, set->common);
}

static int
compare_heads(const void *a, const void *b)
{
	size_t		one_len;
	size_t		other_len;
	const char *one = keypattern_literal_head((*(PassPattern *const *) a)->matcher, &one_len);
	const char *other = keypattern_literal_head((*(PassPattern *const *) b)->matcher, &other_len);
	int			order = memcmp(one, other, Min(one_len, other_len));

	return order != 0 ? order : (one_len > other_len) - (one_len < other_len);
}

PassPattern *
pattern_set_nth(PatternSet *set, int n)
{
	Assert(n >= 0 && n < set->count);
	if (set->sorted == NULL)
	{
		int			i = 0;

		set->sorted = MemoryContextAlloc(set->context, set->count * sizeof(PassPattern *));
		for (PassPattern *p = set->first; p; p = p->next)
			set->sorted[i++] = p;
		qsort(set->sorted, set->count, sizeof(PassPattern *), compare_heads);
	}
	return set->sorted[n];
}

/* The text that the first and the last of a sorted range begin with, all between begin with. */
char *
pattern_set_glob_of(PatternSet *set, int from, int count)
{
	size_t		first_len;
	size_t		last_len;
	size_t		same = 0;
	const char *first = keypattern_literal_head(pattern_set_nth(set, from)->matcher, &first_len);
	const char *last = keypattern_literal_head(pattern_set_nth(set, from + count - 1)->matcher,
											   &last_len);

	Assert(count > 0);
	if (count == 1)
		return pstrdup(keypattern_glob(pattern_set_nth(set, from)->matcher));
	while (same < first_len && same < last_len && first[same] == last[same])
		same++;
	return glob_for_head(first, same);
}

/*
 * --------------------------------------------------------------------------
 * Searching
 * --------------------------------------------------------------------------
 */

void
pattern_set_search(PatternSearch *search, const PatternSet *set, const char *key, size_t len)
{
	*search = (PatternSearch) {.set = set, .key = key, .len = len, .hash = HASH_BEGIN};
}

bool
pattern_set_next(PatternSearch *search, PassPattern **candidate)
{
	const PatternSet *set = search->set;

	Assert(search->hashed <= search->len && search->nlengths <= set->nlengths);
	*candidate = search->more;
	if (search->more == NULL)
	{
		TextKey		key = {.bytes = search->key};
		TextEntry  *entry;

		if (search->nlengths == set->nlengths || set->lengths[search->nlengths] > search->len)
			return false;
		key.len = set->lengths[search->nlengths++];
		key.hash = search->hash = hash_more(search->hash, search->key + search->hashed,
											key.len - search->hashed);
		search->hashed = key.len;
		entry = hash_search_with_hash_value(set->heads, &key, key.hash, HASH_FIND, NULL);
		*candidate = entry ? entry->pattern : NULL;
	}
	if (*candidate != NULL)
		search->more = (*candidate)->next_of_head;
	return true;
}

bool
pattern_set_free_some(PatternSet *set, int most)
{
	for (int i = 0; i < most && set->first != NULL; i++)
	{
		keypattern_free(set->first->matcher);
		set->first = set->first->next;
	}
	return set->first == NULL;
}
