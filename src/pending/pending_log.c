/*
 * pending_log.c
 *	  The log that the pending set is: entries in memory and in a temporary file.
 *
 * Entries are appended, never changed, and a position in the log only grows, until
 * its end is cut off.
 *
 *		file                     |  memory
 *		[entry entry ... entry   |  entry entry entry ...free...]
 *		0                        base                 base + used
 *
 * The newest part of the log is in memory, with a hash table that finds equal
 * entries.  When that part has PENDING_MEMORY_ENTRIES entries or
 * PENDING_MEMORY_BYTES bytes it is written to a temporary file and a new part
 * begins: from then on an entry may be added a second time, which costs a
 * needless delete, and memory stays bounded however long the transaction is.
 *
 * An ERROR in here fails the user's statement and leaves the log as it was.
 * Cutting and forgetting allocate nothing, since they run while transactions
 * end.  The temporary file belongs to the transaction's resource owner, which
 * removes it; a file that a crash leaves behind is removed by the server's start.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/buffile.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/compat.h"
#include "pending/pending_int.h"

/* Exact up to here: the number that the documentation promises. */
#define PENDING_MEMORY_ENTRIES	65536

/* Room for PENDING_MEMORY_ENTRIES keys of 256 bytes. */
#define PENDING_MEMORY_BYTES	(16 * 1024 * 1024)

/* Kept from transaction to transaction, so that small ones allocate nothing. */
#define PENDING_KEPT_BYTES		(16 * 1024)

/* Below this, comparing with every entry is cheaper than hashing into a table. */
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

typedef struct HashPlace
{
	uint32		offset;			/* of the entry in memory */
	char		status;
} HashPlace;

static inline uint32 entry_hash_at(uint32 offset);
static inline bool entries_equal_at(uint32 a, uint32 b);

#define SH_PREFIX		places
#define SH_ELEMENT_TYPE HashPlace
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
	char	   *kept;			/* buffer for small transactions, never freed */
	MemoryContext context;		/* everything else; reset at transaction end */

	char	   *memory;			/* the part of the log in memory */
	uint32		size;
	uint32		used;
	uint32		entries;		/* in memory */
	places_hash *places;		/* NULL while entries is small */

	BufFile    *file;			/* the part before; NULL while base is 0 */
	uint64		base;			/* bytes in the file */
}			set;

static inline Entry *
entry_at(uint32 offset)
{
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
	if (BufFileSeek(set.file, 0, (off_t) position, SEEK_SET) != 0)
		elog(ERROR, "could not seek in the temporary file of the pending set");
}

/* Write the part in memory to the file and begin a new one. */
static void
spill(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(set.context);
	ResourceOwner old_owner = CurrentResourceOwner;

	/* A subtransaction's owner would close the file with the subtransaction. */
	CurrentResourceOwner = TopTransactionResourceOwner;
	if (set.file == NULL)
		set.file = BufFileCreateTemp(false);
	seek_in_file(set.base);
	BufFileWrite(set.file, set.memory, set.used);
	CurrentResourceOwner = old_owner;
	MemoryContextSwitchTo(old_context);

	set.base += set.used;
	set.used = 0;
	set.entries = 0;
	if (set.places)
		places_reset(set.places);
}

static void
grow_memory(uint32 need)
{
	uint32		size = set.size;
	char	   *memory;

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
		/* In this order, since each may run out of memory, and the context says that all is there. */
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
}

/* From now on equal entries are found by hash. */
static void
make_places(void)
{
	bool		found;

	set.places = places_create(set.context, 4 * PENDING_SCAN_ENTRIES, NULL);
	for (uint32 at = 0; at < set.used; at += entry_size(entry_at(at)->len))
		places_insert(set.places, at, &found);
}

/*
 * Whether memory holds an entry equal to the one just written behind its end.
 * If not, that entry's place is taken.
 */
static bool
find_or_take_place(void)
{
	bool		found;

	if (set.entries < PENDING_SCAN_ENTRIES && set.places == NULL)
	{
		for (uint32 at = 0; at < set.used; at += entry_size(entry_at(at)->len))
		{
			if (entries_equal_at(at, set.used))
				return true;
		}
		return false;
	}
	if (set.places == NULL)
		make_places();
	places_insert(set.places, set.used, &found);
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

	if (find_or_take_place())
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

/* Take the entries from this offset on out of the table of places. */
static void
forget_places(uint32 from)
{
	uint32		at = from;

	while (at < set.used)
	{
		if (set.places)
			places_delete(set.places, at);
		set.entries--;
		at += entry_size(entry_at(at)->len);
	}
}

void
pending_log_cut(uint64 position)
{
	if (position < set.base)
	{
		/* What memory held is gone, and so is the end of the file. */
		set.base = position;
		set.used = 0;
		set.entries = 0;
		if (set.places)
			places_reset(set.places);
	}
	else
	{
		uint32		used = (uint32) (position - set.base);

		forget_places(used);
		set.used = used;
	}
}

void
pending_log_clear(void)
{
	if (set.file)
		BufFileClose(set.file);
	pending_log_forget();
}

/* The transaction is over; a temporary file is its resource owner's business. */
void
pending_log_forget(void)
{
	if (set.context == NULL)
		return;

	if (set.memory != set.kept || set.places || set.file)
		MemoryContextReset(set.context);
	set.memory = set.kept;
	set.size = PENDING_KEPT_BYTES;
	set.used = 0;
	set.entries = 0;
	set.places = NULL;
	set.file = NULL;			/* closed by its resource owner */
	set.base = 0;
}

struct PendingReader
{
	uint64		position;
	Entry	   *from_file;		/* copy of an entry that is in the file */
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

/* The next entry of the file, whose read position is the reader's. */
static Entry *
read_from_file(PendingReader *reader)
{
	Entry		head;
	uint32		size;

	BufFileReadExact(set.file, &head, offsetof(Entry, bytes));
	size = entry_size(head.len);
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
