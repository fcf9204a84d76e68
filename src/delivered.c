/*
 * delivered.c
 *	  Four bits for each outbox row (see delivered.h).
 *
 *		root -> per table: 256 directories -> 1024 segments -> 512 pages -> 64 bytes
 *
 * so a table can have 134 million pages (1 TB).  Directories and segments are
 * made when a bit in them is first set.  The worker alone changes anything; a
 * segment is freed under the slot's lock, under which the views look.
 *
 * Out of memory a row just stays unsent for ever in here: it is sent again at the
 * next scan, and its table is not emptied before that works.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/dsa.h"

#include "delivered.h"

/*
 * An outbox row needs 64 bytes and a line pointer at the least, so a page holds
 * fewer than this: 128 where pages have 8 kB.
 */
#define ROWS_PER_PAGE			(BLCKSZ / 64)
#define ROW_BITS				4
#define ROW_MASK				((1 << ROW_BITS) - 1)
#define ROWS_PER_BYTE			(BITS_PER_BYTE / ROW_BITS)
#define BYTES_PER_PAGE			(ROWS_PER_PAGE / ROWS_PER_BYTE)
#define PAGES_PER_SEGMENT		512
#define SEGMENTS_PER_DIRECTORY	1024
#define DIRECTORIES				256

typedef struct Directory
{
	dsa_pointer segments[SEGMENTS_PER_DIRECTORY];
} Directory;

typedef struct Root
{
	dsa_pointer directories[OUTBOX_TABLES][DIRECTORIES];
} Root;

/* The worker's own; NULL elsewhere. */
static DatabaseSlot *my_slot = NULL;
static dsa_area *area = NULL;
static Root *root = NULL;

struct DeliveredView
{
	DatabaseSlot *slot;
	dsa_area   *area;
	dsa_pointer root;
};

void
delivered_create(DatabaseSlot *slot)
{
	dsa_pointer pointer;

	area = dsa_create(Shared_state->dsa_tranche);
	dsa_pin_mapping(area);
	pointer = dsa_allocate0(area, sizeof(Root));
	root = dsa_get_address(area, pointer);
	my_slot = slot;

	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	slot->delivered_area = dsa_get_handle(area);
	slot->delivered_root = pointer;
	LWLockRelease(slot->lock);
}

/* Follow a pointer, making what it points to if asked; NULL without. */
static void *
follow(dsa_area *in, dsa_pointer *pointer, Size size, bool make)
{
	if (!DsaPointerIsValid(*pointer) && make)
		*pointer = dsa_allocate_extended(in, size, DSA_ALLOC_ZERO | DSA_ALLOC_NO_OOM);
	return DsaPointerIsValid(*pointer) ? dsa_get_address(in, *pointer) : NULL;
}

/* The byte with a row's bits, and their shift in it; NULL without. */
static uint8 *
find_bits(dsa_area *in, Root *from, int table, const ItemPointerData *tid,
		  bool make, int *shift)
{
	BlockNumber page = ItemPointerGetBlockNumberNoCheck(tid);
	int			row = ItemPointerGetOffsetNumberNoCheck(tid) - 1;
	BlockNumber segment_number = page / PAGES_PER_SEGMENT;
	BlockNumber directory_number = segment_number / SEGMENTS_PER_DIRECTORY;
	Directory  *directory;
	uint8	   *segment;

	Assert(table >= 0 && table < OUTBOX_TABLES);
	if (row >= ROWS_PER_PAGE || directory_number >= DIRECTORIES)
		return NULL;
	directory = follow(in, &from->directories[table][directory_number],
					   sizeof(Directory), make);
	if (directory == NULL)
		return NULL;
	segment = follow(in, &directory->segments[segment_number % SEGMENTS_PER_DIRECTORY],
					 PAGES_PER_SEGMENT * BYTES_PER_PAGE, make);
	if (segment == NULL)
		return NULL;

	*shift = row % ROWS_PER_BYTE * ROW_BITS;
	return segment + page % PAGES_PER_SEGMENT * BYTES_PER_PAGE + row / ROWS_PER_BYTE;
}

RowState
delivered_get(int table, const ItemPointerData *tid)
{
	int			shift;
	uint8	   *bits = find_bits(area, root, table, tid, false, &shift);

	return bits ? (*bits >> shift) & ROW_MASK : ROW_UNSENT;
}

void
delivered_set(int table, const ItemPointerData *tid, RowState state)
{
	int			shift;
	uint8	   *bits = find_bits(area, root, table, tid, true, &shift);

	if (bits)
		*bits = (*bits & ~(ROW_MASK << shift)) | (state << shift);
}

void
delivered_forget_table(int table)
{
	LWLockAcquire(my_slot->lock, LW_EXCLUSIVE);
	for (int d = 0; d < DIRECTORIES; d++)
	{
		dsa_pointer *pointer = &root->directories[table][d];
		Directory  *directory = follow(area, pointer, 0, false);

		if (directory == NULL)
			continue;
		for (int s = 0; s < SEGMENTS_PER_DIRECTORY; s++)
		{
			if (DsaPointerIsValid(directory->segments[s]))
				dsa_free(area, directory->segments[s]);
		}
		dsa_free(area, *pointer);
		*pointer = InvalidDsaPointer;
	}
	LWLockRelease(my_slot->lock);
	dsa_trim(area);
}

/* Rows in one state get another one. */
static void
change_segment(uint8 *bits, RowState from, RowState to)
{
	for (int i = 0; i < PAGES_PER_SEGMENT * BYTES_PER_PAGE; i++)
	{
		for (int shift = 0; bits[i] != 0 && shift < BITS_PER_BYTE; shift += ROW_BITS)
		{
			if (((bits[i] >> shift) & ROW_MASK) == from)
				bits[i] ^= (from ^ to) << shift;
		}
	}
}

static void
change_all(RowState from, RowState to)
{
	for (int i = 0; i < OUTBOX_TABLES * DIRECTORIES; i++)
	{
		Directory  *directory = follow(area, &root->directories[i / DIRECTORIES][i % DIRECTORIES],
									   0, false);

		for (int s = 0; directory != NULL && s < SEGMENTS_PER_DIRECTORY; s++)
		{
			uint8	   *segment = follow(area, &directory->segments[s], 0, false);

			if (segment != NULL)
				change_segment(segment, from, to);
		}
	}
}

void
delivered_repeat_all(void)
{
	change_all(ROW_DELIVERED, ROW_TO_REPEAT);
}

void
delivered_resume_sent(void)
{
	change_all(ROW_SENT, ROW_TO_RESUME);
	/* Who waited for it is not to be answered once more. */
	change_all(ROW_SENT_AGAIN, ROW_TO_REPEAT);
}

DeliveredView *
delivered_view_open(DatabaseSlot *slot)
{
	DeliveredView *view = palloc(sizeof(DeliveredView));

	LWLockAcquire(slot->lock, LW_SHARED);
	view->area = slot->delivered_area == DSM_HANDLE_INVALID ? NULL :
		dsa_attach(slot->delivered_area);
	view->root = slot->delivered_root;
	LWLockRelease(slot->lock);

	if (view->area == NULL)
	{
		pfree(view);
		return NULL;
	}
	view->slot = slot;
	return view;
}

bool
delivered_view_has(DeliveredView *view, int table, ItemPointer tid)
{
	Root	   *from = dsa_get_address(view->area, view->root);
	uint8	   *bits;
	int			shift;
	bool		has;

	LWLockAcquire(view->slot->lock, LW_SHARED);
	bits = find_bits(view->area, from, table, tid, false, &shift);
	has = bits != NULL && ((*bits >> shift) & ROW_MASK) == ROW_DELIVERED;
	LWLockRelease(view->slot->lock);
	return has;
}

void
delivered_view_close(DeliveredView *view)
{
	dsa_detach(view->area);
	pfree(view);
}
