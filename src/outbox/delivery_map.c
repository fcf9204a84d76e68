/*
 * delivery_map.c
 *	  What the worker knows of each outbox row (see delivery_map.h).
 *
 *		root -> per table: 256 directories -> 1024 segments -> 512 entries
 *
 * An entry stands for a page of the outbox.  Nearly always the rows of a page are in one
 * state; then the entry says which, and how many rows there are.  Only a page whose rows
 * differ has four bits for each of them:
 *
 *		0							nothing is known: each row is unsent
 *		count << 16 | state << 1 | 1	the first "count" rows are in this state
 *		a pointer, which is even	to a RowsOfPage
 *
 * So a page of the outbox takes eight bytes of shared memory when all of it is delivered,
 * and 64 MB, which is all that Docker gives by default, are enough for 64 GB of outbox.
 * A page that is being filled would change its form with each transaction; so the newest
 * page of each table keeps its bits.
 *
 * Where there is no shared memory left the worker says so, and keeps the states in its own
 * memory instead: delivery goes on, but the views show such rows as undelivered.  The worker
 * asks for shared memory again after a pause.
 *
 * The worker alone changes anything.  What an entry or a directory points to is freed
 * after the pointer was changed under the slot's lock, under which the views look.
 * Entries that are no pointers change without the lock: a view may be late by an instant.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "storage/lwlock.h"
#include "utils/dsa.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "outbox/delivery_map.h"
#include "base/fault_point.h"
#include "base/log_text.h"

/* PostgreSQL puts no more line pointers into a page, dead ones included. */
#define ROWS_PER_PAGE			MaxHeapTuplesPerPage
#define ROW_BITS				4
#define ROW_MASK				((1 << ROW_BITS) - 1)
#define ROWS_PER_BYTE			(BITS_PER_BYTE / ROW_BITS)
#define BYTES_PER_PAGE			((ROWS_PER_PAGE + ROWS_PER_BYTE - 1) / ROWS_PER_BYTE)
#define PAGES_PER_SEGMENT		512
#define SEGMENTS_PER_DIRECTORY	1024
#define DIRECTORIES				256

/* Before shared memory is asked for again: each refusal leaks some bytes. */
#define SHORTAGE_MS				(60 * 1000)

typedef uint64 PageEntry;

/* The rows of a page, one by one. */
typedef struct RowsOfPage
{
	uint16		last;			/* no row behind it was ever set */
	uint16		counts[ROW_STATES]; /* rows in each state but ROW_UNSENT */
	uint8		bits[BYTES_PER_PAGE];
} RowsOfPage;

typedef struct Segment
{
	PageEntry	entries[PAGES_PER_SEGMENT];
} Segment;

typedef struct Directory
{
	dsa_pointer segments[SEGMENTS_PER_DIRECTORY];
} Directory;

typedef struct Root
{
	dsa_pointer directories[OUTBOX_TABLES][DIRECTORIES];
} Root;

/* A page for which there was no shared memory.  Pointers in the entry are to own memory. */
typedef struct OwnPage
{
	struct
	{
		int			table;
		BlockNumber page;
	}			key;			/* hash key */
	PageEntry	entry;
} OwnPage;

/* The entry of a page, or NULL; and whether it is in own memory. */
typedef struct EntryRef
{
	PageEntry  *entry;
	bool		own;
} EntryRef;

/* The worker's own; NULL elsewhere. */
static DatabaseState *my_slot = NULL;
static dsa_area *area = NULL;	/* NULL, and root with it, where there was no memory */
static Root *root = NULL;
static MemoryContext context;
static HTAB *own_pages = NULL;	/* made with the first of them */
static TimestampTz short_until = 0; /* no shared memory is asked for before; 0: there is some */

/* Of each table, the page that keeps its bits; InvalidBlockNumber: none. */
static BlockNumber newest[OUTBOX_TABLES];

/* Of each table, what was taken for delivery. */
static struct
{
	int			under_way;		/* rows */
	uint64		taken;			/* rows, ever */
	TimestampTz last_delivery;	/* 0: none */
}			counts[OUTBOX_TABLES];

struct DeliveryMapView
{
	DatabaseState *database;
	dsa_area   *area;
	dsa_pointer root;
};

/*
 * --------------------------------------------------------------------------
 * Shared memory, which may be short
 * --------------------------------------------------------------------------
 */

static void
note_shortage(const char *reason)
{
	char		message[256];

	if (short_until == 0)
		ereport(LOG,
				(errmsg("there is no shared memory to note what is delivered: %s", reason),
				 errdetail("Delivery goes on. Until there is, the views show some rows as "
						   "undelivered that are delivered."),
				 errhint("Make /dev/shm larger (with Docker: --shm-size), or the memory that "
						 "dynamic_shared_memory_type names.")));
	short_until = TimestampTzPlusMilliseconds(clock_now(), SHORTAGE_MS);
	snprintf(message, sizeof(message),
			 "no shared memory to note what is delivered, so the views show too much; make "
			 "/dev/shm larger: %s",
			 log_text_cut(reason, 140));
	shmem_note_error(my_slot, message);
}

/*
 * PostgreSQL raises an ERROR where the operating system refuses memory, even with
 * DSA_ALLOC_NO_OOM.  The lightweight locks that this may leave held are those of the area;
 * the worker holds no others here.
 */
static dsa_pointer
try_to_allocate(Size size)
{
	volatile dsa_pointer pointer = InvalidDsaPointer;
	MemoryContext old_context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	Assert(!LWLockHeldByMe(my_slot->lock));
	PG_TRY();
	{
		CurrentResourceOwner = NULL;	/* it lives as long as the worker */
		FAULT_POINT("shared-memory");
		if (area == NULL)
		{
			area = dsa_create(UncacheShmem->dsa_tranche);
			dsa_pin_mapping(area);
		}
		pointer = dsa_allocate_extended(area, size, DSA_ALLOC_ZERO | DSA_ALLOC_NO_OOM);
		if (!DsaPointerIsValid(pointer))
			note_shortage("out of memory");
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		LWLockReleaseAll();
		MemoryContextSwitchTo(old_context);
		edata = CopyErrorData();
		FlushErrorState();
		note_shortage(edata->message);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	return pointer;
}

/* Zeroed shared memory, or InvalidDsaPointer. */
static dsa_pointer
allocate(Size size)
{
	dsa_pointer pointer;

	if (short_until != 0 && clock_now() < short_until)
		return InvalidDsaPointer;
	pointer = try_to_allocate(size);
	if (DsaPointerIsValid(pointer) && short_until != 0)
	{
		ereport(LOG, (errmsg("there is shared memory again to note what is delivered")));
		short_until = 0;
	}
	return pointer;
}

/* Follow a pointer; where it points to nothing, allocate that if "make"; else NULL. */
static void *
follow(dsa_area *in, dsa_pointer *pointer, Size size, bool make)
{
	if (!DsaPointerIsValid(*pointer) && make)
		*pointer = allocate(size);
	return DsaPointerIsValid(*pointer) ? dsa_get_address(in, *pointer) : NULL;
}

static void
make_root(void)
{
	dsa_pointer pointer = allocate(sizeof(Root));

	if (!DsaPointerIsValid(pointer))
		return;
	root = dsa_get_address(area, pointer);
	LWLockAcquire(my_slot->lock, LW_EXCLUSIVE);
	my_slot->delivered_area = dsa_get_handle(area);
	my_slot->delivered_root = pointer;
	LWLockRelease(my_slot->lock);
}

void
delivery_map_create(DatabaseState *database)
{
	Assert(my_slot == NULL && database != NULL);
	my_slot = database;
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache delivered rows",
									ALLOCSET_DEFAULT_SIZES);
	for (int t = 0; t < OUTBOX_TABLES; t++)
		newest[t] = InvalidBlockNumber;
	make_root();
}

/*
 * --------------------------------------------------------------------------
 * Entries
 * --------------------------------------------------------------------------
 */

static PageEntry
uniform_entry(int count, RowState state)
{
	Assert(count > 0 && count <= ROWS_PER_PAGE && state != ROW_UNSENT);
	return (PageEntry) count << 16 | (PageEntry) state << 1 | 1;
}

static bool
entry_is_pointer(PageEntry entry)
{
	return entry != 0 && (entry & 1) == 0;
}

static int
uniform_count(PageEntry entry)
{
	Assert(!entry_is_pointer(entry));
	return (int) (entry >> 16);
}

static RowState
uniform_state(PageEntry entry)
{
	Assert(!entry_is_pointer(entry));
	return (RowState) ((entry >> 1) & ROW_MASK);
}

/* The entry of a page in shared memory. */
static PageEntry *
shared_entry(dsa_area *in, Root *from, int table, BlockNumber page, bool make)
{
	BlockNumber segment_number = page / PAGES_PER_SEGMENT;
	BlockNumber directory_number = segment_number / SEGMENTS_PER_DIRECTORY;
	Directory  *directory;
	Segment    *segment;

	Assert(table >= 0 && table < OUTBOX_TABLES);
	if (from == NULL || directory_number >= DIRECTORIES)
		return NULL;
	directory = follow(in, &from->directories[table][directory_number],
					   sizeof(Directory), make);
	if (directory == NULL)
		return NULL;
	segment = follow(in, &directory->segments[segment_number % SEGMENTS_PER_DIRECTORY],
					 sizeof(Segment), make);
	return segment == NULL ? NULL : &segment->entries[page % PAGES_PER_SEGMENT];
}

/* The entry of a page in own memory; NULL where there is none and not "make". */
static PageEntry *
own_entry(int table, BlockNumber page, bool make)
{
	OwnPage		sought = {.key = {.table = table, .page = page}};
	OwnPage    *own;
	bool		found;

	if (own_pages == NULL && make)
	{
		HASHCTL		control = {
			.keysize = sizeof(sought.key),
			.entrysize = sizeof(OwnPage),
			.hcxt = context,
		};

		own_pages = hash_create("pg_uncache own pages", 256, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	if (own_pages == NULL || (!make && hash_get_num_entries(own_pages) == 0))
		return NULL;
	own = hash_search(own_pages, &sought.key, make ? HASH_ENTER : HASH_FIND, &found);
	if (own != NULL && !found)
		own->entry = 0;
	return own == NULL ? NULL : &own->entry;
}

static EntryRef
find_entry(int table, BlockNumber page, bool make)
{
	EntryRef	ref = {.own = true};

	ref.entry = own_entry(table, page, false);
	if (ref.entry != NULL)
		return ref;
	if (root == NULL && make)
		make_root();
	ref.own = false;
	ref.entry = shared_entry(area, root, table, page, make);
	if (ref.entry != NULL || !make)
		return ref;
	ref.own = true;
	ref.entry = own_entry(table, page, true);
	return ref;
}

static RowsOfPage *
rows_of(dsa_area *in, PageEntry entry, bool own)
{
	return own ? (RowsOfPage *) (uintptr_t) entry : dsa_get_address(in, entry);
}

static RowState
rows_get(const RowsOfPage *rows, int row)
{
	Assert(row >= 1 && row <= ROWS_PER_PAGE);
	return (rows->bits[(row - 1) / ROWS_PER_BYTE] >>
			(row - 1) % ROWS_PER_BYTE * ROW_BITS) & ROW_MASK;
}

static void
rows_set(RowsOfPage *rows, int row, RowState state)
{
	uint8	   *byte = &rows->bits[(row - 1) / ROWS_PER_BYTE];
	int			shift = (row - 1) % ROWS_PER_BYTE * ROW_BITS;
	RowState	before = (*byte >> shift) & ROW_MASK;

	Assert(row >= 1 && row <= ROWS_PER_PAGE && state < ROW_STATES);
	Assert(before == ROW_UNSENT || rows->counts[before] > 0);
	if (before != ROW_UNSENT)
		rows->counts[before]--;
	if (state != ROW_UNSENT)
	{
		rows->counts[state]++;
		rows->last = Max(rows->last, row);
	}
	*byte = (*byte & ~(ROW_MASK << shift)) | (state << shift);
}

/* The state of all rows up to the last one; ROW_UNSENT where they differ. */
static RowState
rows_common_state(const RowsOfPage *rows)
{
	RowState	first = rows_get(rows, 1);

	return first != ROW_UNSENT && rows->counts[first] == rows->last ? first : ROW_UNSENT;
}

static RowState
entry_get(dsa_area *in, PageEntry entry, bool own, int row)
{
	Assert(row >= 1);
	if (row > ROWS_PER_PAGE)
		return ROW_UNSENT;
	if (entry_is_pointer(entry))
		return rows_get(rows_of(in, entry, own), row);
	return row <= uniform_count(entry) ? uniform_state(entry) : ROW_UNSENT;
}

/* Change an entry that is a pointer, or becomes one: views may be following it. */
static void
publish(EntryRef ref, PageEntry value)
{
	if (ref.own)
	{
		*ref.entry = value;
		return;
	}
	Assert(!LWLockHeldByMe(my_slot->lock));
	LWLockAcquire(my_slot->lock, LW_EXCLUSIVE);
	*ref.entry = value;
	LWLockRelease(my_slot->lock);
}

/* Move the entry of a page whose rows are in one state to shared memory, if there is some. */
static void
give_to_views(int table, BlockNumber page)
{
	OwnPage		sought = {.key = {.table = table, .page = page}};
	PageEntry  *entry = own_entry(table, page, false);
	PageEntry  *shared = entry == NULL ? NULL : shared_entry(area, root, table, page, true);

	if (shared == NULL)
		return;
	*shared = *entry;
	hash_search(own_pages, &sought.key, HASH_REMOVE, NULL);
}

/* Where all rows of a page are in one state now, replace its bits by a uniform entry. */
static void
collapse(int table, BlockNumber page)
{
	EntryRef	ref = find_entry(table, page, false);
	PageEntry	entry = ref.entry == NULL ? 0 : *ref.entry;
	RowsOfPage *rows;
	RowState	state;

	if (!entry_is_pointer(entry))
		return;
	rows = rows_of(area, entry, ref.own);
	state = rows_common_state(rows);
	if (state == ROW_UNSENT)
		return;
	publish(ref, uniform_entry(rows->last, state));
	if (ref.own)
	{
		pfree(rows);
		give_to_views(table, page);
	}
	else
		dsa_free(area, entry);
}

/* Give a page bits for each of its rows. */
static RowsOfPage *
expand(EntryRef *ref, int table, BlockNumber page)
{
	PageEntry	entry = *ref->entry;
	dsa_pointer pointer = ref->own ? InvalidDsaPointer : allocate(sizeof(RowsOfPage));
	RowsOfPage *rows;
	BlockNumber before = newest[table];

	Assert(!entry_is_pointer(entry));
	if (!DsaPointerIsValid(pointer) && !ref->own)
	{
		ref->own = true;
		ref->entry = own_entry(table, page, true);
	}
	rows = ref->own ? MemoryContextAllocZero(context, sizeof(RowsOfPage)) :
		dsa_get_address(area, pointer);
	for (int row = 1; row <= uniform_count(entry); row++)
		rows_set(rows, row, uniform_state(entry));
	publish(*ref, ref->own ? (PageEntry) (uintptr_t) rows : pointer);

	if (before == InvalidBlockNumber || page > before)
	{
		newest[table] = page;
		if (before != InvalidBlockNumber)
			collapse(table, before);
	}
	return rows;
}

RowState
delivery_map_get(int table, const ItemPointerData *tid)
{
	EntryRef	ref = find_entry(table, ItemPointerGetBlockNumberNoCheck(tid), false);

	Assert(my_slot != NULL && table >= 0 && table < OUTBOX_TABLES);
	return ref.entry == NULL ? ROW_UNSENT :
		entry_get(area, *ref.entry, ref.own, ItemPointerGetOffsetNumberNoCheck(tid));
}

/* Change a uniform entry that stays uniform with that; false where it does not. */
static bool
set_uniform(PageEntry *entry, int row, RowState state)
{
	int			count = uniform_count(*entry);

	if (count <= 1 && row == 1)
		*entry = uniform_entry(1, state);
	else if (count > 0 && uniform_state(*entry) == state && row <= count + 1)
		*entry = uniform_entry(Max(count, row), state);
	else
		return false;
	return true;
}

void
delivery_map_set(int table, const ItemPointerData *tid, RowState state)
{
	BlockNumber page = ItemPointerGetBlockNumberNoCheck(tid);
	int			row = ItemPointerGetOffsetNumberNoCheck(tid);
	EntryRef	ref = find_entry(table, page, true);
	RowsOfPage *rows;

	Assert(my_slot != NULL && table >= 0 && table < OUTBOX_TABLES);
	if (row > ROWS_PER_PAGE)
		return;
	if (!entry_is_pointer(*ref.entry) && set_uniform(ref.entry, row, state))
		return;
	rows = entry_is_pointer(*ref.entry) ? rows_of(area, *ref.entry, ref.own) :
		expand(&ref, table, page);
	rows_set(rows, row, state);
	if (page != newest[table])
		collapse(table, page);
}

/*
 * --------------------------------------------------------------------------
 * What is under way
 * --------------------------------------------------------------------------
 */

void
delivery_map_take(int table, const ItemPointerData *tid, bool answered)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	counts[table].under_way++;
	counts[table].taken++;
	delivery_map_set(table, tid, delivery_map_when_sent(answered));
}

void
delivery_map_leave(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	Assert(counts[table].under_way > 0);
	counts[table].under_way--;
}

int
delivery_map_under_way(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	return counts[table].under_way;
}

uint64
delivery_map_taken(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	return counts[table].taken;
}

void
delivery_map_note_delivery(int table, TimestampTz now)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	counts[table].last_delivery = now;
}

TimestampTz
delivery_map_last_delivery(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	return counts[table].last_delivery;
}

/*
 * --------------------------------------------------------------------------
 * All rows
 * --------------------------------------------------------------------------
 */

static void
free_segment(dsa_pointer pointer)
{
	Segment    *segment = dsa_get_address(area, pointer);

	for (int i = 0; i < PAGES_PER_SEGMENT; i++)
	{
		if (entry_is_pointer(segment->entries[i]))
			dsa_free(area, segment->entries[i]);
	}
	dsa_free(area, pointer);
}

/* Free a directory and all below it; no view can find it any more. */
static void
free_directory(dsa_pointer pointer)
{
	Directory  *directory = dsa_get_address(area, pointer);

	for (int s = 0; s < SEGMENTS_PER_DIRECTORY; s++)
	{
		if (DsaPointerIsValid(directory->segments[s]))
			free_segment(directory->segments[s]);
	}
	dsa_free(area, pointer);
}

static void
forget_own_pages(int table)
{
	HASH_SEQ_STATUS scan;
	OwnPage    *own;

	if (own_pages == NULL || hash_get_num_entries(own_pages) == 0)
		return;
	hash_seq_init(&scan, own_pages);
	while ((own = hash_seq_search(&scan)) != NULL)
	{
		if (own->key.table != table)
			continue;
		if (entry_is_pointer(own->entry))
			pfree(rows_of(area, own->entry, true));
		hash_search(own_pages, &own->key, HASH_REMOVE, NULL);
	}
}

void
delivery_map_forget_table(int table)
{
	Assert(table >= 0 && table < OUTBOX_TABLES);
	Assert(counts[table].under_way == 0);
	newest[table] = InvalidBlockNumber;
	forget_own_pages(table);
	if (root == NULL)
		return;
	for (int d = 0; d < DIRECTORIES; d++)
	{
		dsa_pointer pointer = root->directories[table][d];

		if (!DsaPointerIsValid(pointer))
			continue;
		LWLockAcquire(my_slot->lock, LW_EXCLUSIVE);
		root->directories[table][d] = InvalidDsaPointer;
		LWLockRelease(my_slot->lock);
		free_directory(pointer);
	}
	dsa_trim(area);
	/* There may be room now. */
	if (short_until != 0)
		short_until = clock_now();
}

/* Rows of a page that are in state "from" get state "to". */
static void
change_entry(PageEntry *entry, bool own, RowState from, RowState to)
{
	RowsOfPage *rows;

	Assert(from != ROW_UNSENT && to != ROW_UNSENT);
	if (!entry_is_pointer(*entry))
	{
		if (uniform_count(*entry) > 0 && uniform_state(*entry) == from)
			*entry = uniform_entry(uniform_count(*entry), to);
		return;
	}
	rows = rows_of(area, *entry, own);
	for (int row = 1; row <= rows->last && rows->counts[from] > 0; row++)
	{
		if (rows_get(rows, row) == from)
			rows_set(rows, row, to);
	}
}

static void
change_own(RowState from, RowState to)
{
	HASH_SEQ_STATUS scan;
	OwnPage    *own;

	if (own_pages == NULL)
		return;
	hash_seq_init(&scan, own_pages);
	while ((own = hash_seq_search(&scan)) != NULL)
		change_entry(&own->entry, true, from, to);
}

static void
change_all(RowState from, RowState to)
{
	change_own(from, to);
	for (int i = 0; root != NULL && i < OUTBOX_TABLES * DIRECTORIES; i++)
	{
		Directory  *directory = follow(area, &root->directories[i / DIRECTORIES][i % DIRECTORIES],
									   0, false);

		for (int s = 0; directory != NULL && s < SEGMENTS_PER_DIRECTORY; s++)
		{
			Segment    *segment = follow(area, &directory->segments[s], 0, false);

			for (int p = 0; segment != NULL && p < PAGES_PER_SEGMENT; p++)
				change_entry(&segment->entries[p], false, from, to);
		}
	}
}

void
delivery_map_repeat_all(void)
{
	change_all(ROW_DELIVERED, ROW_RESEND_FORGOTTEN);
}

void
delivery_map_resume_sent(void)
{
	change_all(ROW_SENT, ROW_RESEND_MISSED);
	/* The waiter of such a row was answered already. */
	change_all(ROW_SENT_AGAIN, ROW_RESEND_FORGOTTEN);
}

DeliveryMapView *
delivery_map_view_open(DatabaseState *database)
{
	DeliveryMapView *view = palloc(sizeof(DeliveryMapView));

	LWLockAcquire(database->lock, LW_SHARED);
	view->area = database->delivered_area == DSM_HANDLE_INVALID ? NULL :
		dsa_attach(database->delivered_area);
	view->root = database->delivered_root;
	LWLockRelease(database->lock);

	if (view->area == NULL)
	{
		pfree(view);
		return NULL;
	}
	view->database = database;
	return view;
}

bool
delivery_map_view_has(DeliveryMapView *view, int table, ItemPointer tid)
{
	Root	   *from = dsa_get_address(view->area, view->root);
	PageEntry  *entry;
	bool		has;

	LWLockAcquire(view->database->lock, LW_SHARED);
	entry = shared_entry(view->area, from, table, ItemPointerGetBlockNumber(tid), false);
	has = entry != NULL && entry_get(view->area, *(volatile PageEntry *) entry, false,
									 ItemPointerGetOffsetNumber(tid)) == ROW_DELIVERED;
	LWLockRelease(view->database->lock);
	return has;
}

void
delivery_map_view_close(DeliveryMapView *view)
{
	dsa_detach(view->area);
	pfree(view);
}
