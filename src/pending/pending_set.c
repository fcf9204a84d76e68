/*
 * pending_set.c
 *	  The pending set: the distinct invalidations of the running transaction.
 *
 * The set is a log (pending_log.c): entries are appended, never changed.  Subtransactions
 * nest, so the entries that a subtransaction has added are always the log's tail.  The first
 * addition in a subtransaction makes a mark, which holds the position where it began;
 * rolling it back cuts the log there.
 *
 * An ERROR in here fails the user's statement and leaves the set unchanged.  The functions
 * for transaction callbacks allocate nothing and raise nothing.  If the session crashes, its
 * transaction and the set are gone together.  There are never more marks than nested
 * subtransactions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "pending/pending_int.h"

/* Where a subtransaction began, and what the set held then. */
typedef struct Mark
{
	int			level;
	uint64		position;
	uint64		keys;
	uint64		not_awaited;
	uint64		bytes;
} Mark;

void		(*pending_grown_hook) (Oid rule) = NULL;

static struct
{
	uint64		keys;			/* of the whole set */
	uint64		not_awaited;	/* invalidations of it for which no COMMIT waits */
	uint64		bytes;			/* of all invalidations */

	Mark	   *marks;			/* ascending by level and position */
	int			nmarks;
	int			marks_size;
}			set;

#ifdef USE_ASSERT_CHECKING

/* True if the marks are in ascending order and none is for the top transaction. */
static bool
marks_are_sound(void)
{
	for (int i = 0; i < set.nmarks; i++)
	{
		if (set.marks[i].level < 2 || set.marks[i].position > pending_log_position() ||
			(i > 0 && (set.marks[i - 1].level >= set.marks[i].level ||
					   set.marks[i - 1].position > set.marks[i].position)))
			return false;
	}
	return true;
}

#endif

/* Make the mark of the running subtransaction, unless it has one. */
static void
make_mark(void)
{
	int			level = GetCurrentTransactionNestLevel();
	Mark	   *mark;

	if (level <= 1 || (set.nmarks > 0 && set.marks[set.nmarks - 1].level >= level))
		return;

	if (set.nmarks == set.marks_size)
	{
		int			size = Max(8, set.marks_size * 2);

		if (set.marks == NULL)
			set.marks = MemoryContextAlloc(TopMemoryContext, size * sizeof(Mark));
		else
			set.marks = repalloc(set.marks, size * sizeof(Mark));
		set.marks_size = size;
	}
	mark = &set.marks[set.nmarks++];
	mark->level = level;
	mark->position = pending_log_position();
	mark->keys = set.keys;
	mark->not_awaited = set.not_awaited;
	mark->bytes = set.bytes;
	Assert(marks_are_sound());
}

bool
pending_set_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len)
{
	Assert(IsTransactionState());
	make_mark();
	if (!pending_log_add(kind, rule, bytes, len))
		return false;

	set.bytes += len;
	if (invalidation_traits(kind)->keys == INVALIDATION_KEYS_ITSELF)
		set.keys++;
	if (!invalidation_traits(kind)->is_awaited)
		set.not_awaited++;
	if (pending_grown_hook)
		pending_grown_hook(rule);
	return true;
}

uint64
pending_set_keys(void)
{
	return set.keys;
}

uint64
pending_set_bytes(void)
{
	return set.bytes;
}

bool
pending_set_is_awaited(void)
{
	return set.not_awaited == 0;
}

bool
pending_set_is_empty(void)
{
	return pending_log_position() == 0;
}

/* Cut the log where the mark says. */
static void
cut(const Mark *mark)
{
	Assert(mark->keys <= set.keys && mark->bytes <= set.bytes &&
		   mark->not_awaited <= set.not_awaited);
	pending_log_cut(mark->position);
	set.keys = mark->keys;
	set.not_awaited = mark->not_awaited;
	set.bytes = mark->bytes;
}

void
pending_set_subcommit(int nest_level)
{
	Mark	   *top;

	Assert(nest_level > 1);
	if (set.nmarks == 0 || set.marks[set.nmarks - 1].level < nest_level)
		return;

	top = &set.marks[set.nmarks - 1];
	Assert(top->level == nest_level);	/* deeper subtransactions have ended before */
	top->level = nest_level - 1;
	if (top->level <= 1 ||
		(set.nmarks > 1 && top[-1].level == top->level))
		set.nmarks--;			/* the parent needs no mark, or has its own, an earlier one */
	Assert(marks_are_sound());
}

void
pending_set_subabort(int nest_level)
{
	Assert(nest_level > 1);
	while (set.nmarks > 0 && set.marks[set.nmarks - 1].level >= nest_level)
		cut(&set.marks[--set.nmarks]);
}

void
pending_set_clear(void)
{
	pending_log_clear();
	pending_set_forget();
}

void
pending_set_forget(void)
{
	pending_log_forget();
	if (set.marks)
		pfree(set.marks);
	memset(&set, 0, sizeof(set));
}
