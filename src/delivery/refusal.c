/*
 * refusal.c
 *	  Rules and prefixes of which Redis has refused a key: no session waits for their keys.
 *
 * Where Redis refuses a single key (-NOPERM on it, an UNLINK that the functions may not run) it
 * mostly refuses all keys of the rule that begin alike, until the administrator corrects the
 * rights.  Each commit of such a key would wait for a refusal.  So the first refusal opens
 * a breaker for the target, the rule and the key's text up to its first ':' (all of the key
 * where there is none).  While it is open keys are sent as ever, but no COMMIT waits for them.
 * Any such key that is accepted closes it.
 *
 * The worker keeps the refused key itself, and tries to delete it once a second, which it has to
 * do anyway.  When Redis accepts that, all rows of the side table are tried again, however long
 * their pauses would still be.
 *
 * All of it is in memory, for REFUSALS rules and prefixes; of more the oldest is forgotten, and
 * the next commit of such a key waits for the refusal.  After a crash the side table is tried at
 * once.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/refusal.h"

/* More rules than an ACL tells apart; a search through them is still cheap. */
#define REFUSALS		64

/* How often a refused key is tried. */
#define ASK_MS			1000

typedef struct Refusal
{
	const Target *target;		/* compared only */
	uint32		prefix;			/* hash of the text before the first ':' */
	bool		is_open;
	TimestampTz ask_at;
	RefusedKey	key;			/* key.bytes are a copy */
} Refusal;

static MemoryContext context;
static Refusal refusals[REFUSALS];	/* the oldest first */
static int	nrefusals = 0;
static bool is_over = false;

void
refusal_init(void)
{
	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache refusals",
									ALLOCSET_SMALL_SIZES);
}

bool
refusal_is_any(void)
{
	return nrefusals > 0;
}

static Refusal *
find(const Target *target, Oid rule, const char *key, uint32 len)
{
	const char *colon;
	uint32		prefix;

	if (nrefusals == 0)
		return NULL;
	colon = memchr(key, ':', len);
	prefix = hash_bytes((const unsigned char *) key, colon ? colon - key : len);
	for (int i = 0; i < nrefusals; i++)
	{
		Refusal    *refusal = &refusals[i];

		if (refusal->target == target && refusal->key.rule == rule && refusal->prefix == prefix)
			return refusal;
	}
	return NULL;
}

bool
refusal_is_likely(const Target *target, Oid rule, const char *key, uint32 len)
{
	Refusal    *refusal = find(target, rule, key, len);

	return refusal != NULL && refusal->is_open;
}

static void
forget(Refusal *refusal)
{
	int			after = &refusals[nrefusals] - (refusal + 1);

	Assert(nrefusals > 0 && refusal >= refusals && refusal < refusals + nrefusals);
	pfree(unconstify(char *, refusal->key.bytes));
	memmove(refusal, refusal + 1, after * sizeof(Refusal));
	nrefusals--;
}

void
refusal_note(const Target *target, const RefusedKey *key)
{
	Refusal    *refusal = find(target, key->rule, key->bytes, key->len);
	const char *colon = memchr(key->bytes, ':', key->len);

	if (refusal != NULL)
	{
		refusal->is_open = true;
		return;
	}
	if (nrefusals == REFUSALS)
		forget(&refusals[0]);
	Assert(nrefusals < REFUSALS);
	refusal = &refusals[nrefusals];
	refusal->key = *key;
	refusal->key.bytes = memcpy(MemoryContextAlloc(context, Max(key->len, 1)),
								key->bytes, key->len);
	refusal->target = target;
	refusal->prefix = hash_bytes((const unsigned char *) key->bytes,
								 colon ? colon - key->bytes : key->len);
	refusal->is_open = true;
	refusal->ask_at = TimestampTzPlusMilliseconds(clock_now(), ASK_MS);
	nrefusals++;
}

void
refusal_note_accepted(const Target *target, Oid rule, const char *key, uint32 len)
{
	Refusal    *refusal = find(target, rule, key, len);

	if (refusal == NULL)
		return;
	refusal->is_open = false;
	if (refusal->key.len != len || memcmp(refusal->key.bytes, key, len) != 0)
		return;
	forget(refusal);
	is_over = true;
}

void
refusal_forget_all(void)
{
	is_over |= nrefusals > 0;
	while (nrefusals > 0)
		forget(&refusals[nrefusals - 1]);
}

bool
refusal_next_due(TimestampTz now, RefusedKey *key, TimestampTz *wake)
{
	Assert(nrefusals >= 0 && nrefusals <= REFUSALS);
	*wake = DT_NOEND;
	for (int i = 0; i < nrefusals; i++)
	{
		Refusal    *refusal = &refusals[i];

		if (refusal->ask_at <= now)
		{
			refusal->ask_at = TimestampTzPlusMilliseconds(now, ASK_MS);
			*key = refusal->key;
			return true;
		}
		*wake = Min(*wake, refusal->ask_at);
	}
	return false;
}

bool
refusal_is_over(void)
{
	bool		was_over = is_over;

	is_over = false;
	return was_over;
}
