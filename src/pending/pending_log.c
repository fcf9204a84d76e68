/*
 * pending_log.c
 *	  The log that holds the pending set: entries in memory and in a temporary file.
 *
 * Entries are appended, never changed, and a position in the log only grows, until
 * its end is cut off.
 *
 *		file                     |  memory
 *		[entry entry ... entry   |  entry entry entry ...free...]
 *		0                        base                 base + used
 *
 * The newest part of the log is in memory, with a hash table (the index) that finds equal
 * entries.  When that part has PENDING_MEMORY_ENTRIES entries or PENDING_MEMORY_BYTES bytes
 * it is written to a temporary file, and a new part begins.  So memory stays bounded however
 * long the transaction is; the price is that an entry may then be added a second time, which
 * costs a needless delete.
 *
 * An ERROR in here fails the user's statement and leaves the log unchanged.  Cutting and
 * forgetting allocate nothing, since they run while transactions end.  The temporary file
 * belongs to the transaction's resource owner, which removes it; the server's start removes
 * a file that a crash has left behind.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/buffile.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/compat.h"
#include "pending/pending_int.h"

/* Up to so many entries equal ones are always found; the documentation promises this number. */
#define PENDING_MEMORY_ENTRIES	65536

/* Room for PENDING_MEMORY_ENTRIES keys of 256 bytes. */
#define PENDING_MEMORY_BYTES	(16 * 1024 * 1024)

/* Size of the buffer that stays allocated, so that a small transaction allocates nothing. */
#define PENDING_KEPT_BYTES		(16 * 1024)

/* With fewer entries than this, comparing with each is cheaper than using an index. */
#define PENDING_SCAN_ENTRIES	8

typedef struct Entry
{
	uint32		hash;
	uint32		len;
	Oid			rule;
	uint32		kind;			/* InvalidationKind */
	char		bytes[FLEXIBLE_ARRAY_MEMBER];
} Entry;

#define entry_size(len)		MAXALIGN(offsetof(Entry, bytes) + (len))

typedef struct IndexEntry
{
	uint32		offset;			/* of the entry in memory */
	char		status;			/* of simplehash.h */
} IndexEntry;

static inline uint32 entry_hash_at(uint32 offset);
static inline bool entries_equal_at(uint32 a, uint32 b);

#define SH_PREFIX		index
#define SH_ELEMENT_TYPE IndexEntry
#define SH_KEY_TYPE		uint32
#define SH_KEY			offset
#define SH_HASH_KEY(table, key)		entry_hash_at(key)
#define SH_EQUAL(table, a, b)		entries_equal_at(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static struct
{
	char	   *kept;			/* PENDING_KEPT_BYTES for small transactions, never freed */
	MemoryContext context;		/* of all other memory; reset at transaction end */

	char	   *memory;			/* the part of the log in memory */
	uint32		size;
	uint32		used;
	uint32		entries;		/* in memory */
	index_hash *index;			/* of the entries in memory; NULL while they are few */

	BufFile    *file;			/* the earlier part; NULL if nothing was written */
	uint64		base;			/* bytes in the file */
}			set;

#ifdef USE_ASSERT_CHECKING

/* Positions and sizes agree; the file exists if some of the log must be there. */
static bool
log_is_sound(void)
{
	return set.used <= set.size && (set.base == 0 || set.file != NULL) &&
		(set.entries == 0) == (set.used == 0);
}

#endif

static inline Entry *
entry_at(uint32 offset)
{
	Assert(offset < set.size && offset == MAXALIGN(offset));
	return (Entry *) (set.memory + offset);
}

static inline uint32
entry_hash_at(uint32 offset)
{
	return entry_at(offset)->hash;
}

static inline bool
entries_equal_at(uint32 a, uint32 b)
{
	Entry	   *x = entry_at(a);
	Entry	   *y = entry_at(b);

	return x->hash == y->hash && x->len == y->len && x->kind == y->kind &&
		memcmp(x->bytes, y->bytes, x->len) == 0;
}

static void
seek_in_file(uint64 position)
{
	Assert(set.file != NULL && position <= set.base);
	if (BufFileSeek(set.file, 0, (off_t) position, SEEK_SET) != 0)
		elog(ERROR, "could not seek in the temporary file of the pending set");
}

/* Begin a new part in memory. */
static void
forget_memory(void)
{
	set.used = 0;
	set.entries = 0;
	if (set.index)
		index_reset(set.index);
}

/* Write the part in memory to the file and begin a new one. */
static void
spill(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(set.context);
	ResourceOwner old_owner = CurrentResourceOwner;

	Assert(set.used > 0);
	/* The owner of a subtransaction would close the file when the subtransaction ends. */
	CurrentResourceOwner = TopTransactionResourceOwner;
	if (set.file == NULL)
		set.file = BufFileCreateTemp(false);
	seek_in_file(set.base);
	BufFileWrite(set.file, set.memory, set.used);
	CurrentResourceOwner = old_owner;
	MemoryContextSwitchTo(old_context);

	set.base += set.used;
	forget_memory();
}

static void
grow_memory(uint32 need)
{
	uint32		size = set.size;
	char	   *memory;

	Assert(set.context != NULL && set.used + need > size);
	while (size < set.used + need)
		size *= 2;
	memory = MemoryContextAlloc(set.context, size);
	memcpy(memory, set.memory, set.used);
	if (set.memory != set.kept)
		pfree(set.memory);
	set.memory = memory;
	set.size = size;
}

/* Make room in memory for one more entry. */
static void
make_room(uint32 need)
{
	if (set.context == NULL)
	{
		/* The context comes last: each of these can fail, and it says that all are there. */
		if (set.kept == NULL)
			set.kept = MemoryContextAlloc(TopMemoryContext, PENDING_KEPT_BYTES);
		set.memory = set.kept;
		set.size = PENDING_KEPT_BYTES;
		set.context = AllocSetContextCreate(TopMemoryContext, "pg_uncache pending set",
											ALLOCSET_DEFAULT_SIZES);
	}
	if (set.entries >= PENDING_MEMORY_ENTRIES ||
		(set.used > 0 && set.used + need > PENDING_MEMORY_BYTES))
		spill();
	if (set.used + need > set.size)
		grow_memory(need);
	Assert(log_is_sound());
}

/* Make the index of the entries in memory. */
static void
make_index(void)
{
	bool		found;

	Assert(set.index == NULL);
	set.index = index_create(set.context, 4 * PENDING_SCAN_ENTRIES, NULL);
	for (uint32 at = 0; at < set.used; at += entry_size(entry_at(at)->len))
		index_insert(set.index, at, &found);
}

/*
 * True if memory holds an entry equal to the one just written behind its end.  If not, that
 * entry is in the index from now on.
 */
static bool
find_or_index(void)
{
	bool		found;

	if (set.entries < PENDING_SCAN_ENTRIES && set.index == NULL)
	{
		for (uint32 at = 0; at < set.used; at += entry_size(entry_at(at)->len))
		{
			if (entries_equal_at(at, set.used))
				return true;
		}
		return false;
	}
	if (set.index == NULL)
		make_index();
	index_insert(set.index, set.used, &found);
	return found;
}

bool
pending_log_add(InvalidationKind kind, Oid rule, const char *bytes, size_t len)
{
	Entry	   *entry;

	Assert(len <= INVALIDATION_MAX_BYTES);

	make_room(entry_size(len));
	entry = entry_at(set.used);
	entry->hash = hash_bytes((const unsigned char *) bytes, len) ^ kind;
	entry->len = len;
	entry->rule = rule;
	entry->kind = kind;
	memcpy(entry->bytes, bytes, len);

	if (find_or_index())
		return false;

	set.used += entry_size(len);
	set.entries++;
	return true;
}

uint64
pending_log_position(void)
{
	return set.base + set.used;
}

/* Remove the entries from this offset on from the index and from their count. */
static void
unindex_from(uint32 from)
{
	uint32		at = from;

	Assert(from <= set.used);
	while (at < set.used)
	{
		if (set.index)
			index_delete(set.index, at);
		set.entries--;
		at += entry_size(entry_at(at)->len);
	}
}

void
pending_log_cut(uint64 position)
{
	Assert(position <= pending_log_position());
	if (position < set.base)
	{
		/* All entries in memory are behind the position, and so is the end of the file. */
		set.base = position;
		forget_memory();
	}
	else
	{
		uint32		used = (uint32) (position - set.base);

		unindex_from(used);
		set.used = used;
	}
	Assert(log_is_sound());
}

void
pending_log_clear(void)
{
	if (set.file)
		BufFileClose(set.file);
	pending_log_forget();
}

void
pending_log_forget(void)
{
	if (set.context == NULL)
		return;

	if (set.memory != set.kept || set.index || set.file)
		MemoryContextReset(set.context);
	set.memory = set.kept;
	set.size = PENDING_KEPT_BYTES;
	set.used = 0;
	set.entries = 0;
	set.index = NULL;
	set.file = NULL;			/* closed by its resource owner */
	set.base = 0;
}

struct PendingReader
{
	uint64		position;
	Entry	   *from_file;		/* a copy of the last entry read from the file */
	uint32		size;
};

PendingReader *
pending_log_read_begin(void)
{
	PendingReader *reader = palloc0(sizeof(PendingReader));

	if (set.base > 0)
		seek_in_file(0);
	return reader;
}

/* The next entry of the file, whose own read position is the reader's. */
static Entry *
read_from_file(PendingReader *reader)
{
	Entry		head;
	uint32		size;

	BufFileReadExact(set.file, &head, offsetof(Entry, bytes));
	size = entry_size(head.len);
	Assert(head.len <= INVALIDATION_MAX_BYTES && reader->position + size <= set.base);
	if (reader->size < size)
	{
		if (reader->from_file)
			pfree(reader->from_file);
		reader->size = Max(size, 1024);
		reader->from_file = palloc(reader->size);
	}
	*reader->from_file = head;
	BufFileReadExact(set.file, reader->from_file->bytes, size - offsetof(Entry, bytes));
	return reader->from_file;
}

bool
pending_log_read_next(PendingReader *reader, Invalidation *item)
{
	Entry	   *entry;

	Assert(reader->position <= set.base + set.used);
	if (reader->position >= set.base + set.used)
		return false;

	if (reader->position < set.base)
		entry = read_from_file(reader);
	else
		entry = entry_at((uint32) (reader->position - set.base));
	reader->position += entry_size(entry->len);

	item->kind = entry->kind;
	item->rule = entry->rule;
	item->bytes = entry->bytes;
	item->len = entry->len;
	return true;
}

void
pending_log_read_end(PendingReader *reader)
{
	if (reader->from_file)
		pfree(reader->from_file);
	pfree(reader);
}
