/*
 * item.h
 *	  The packed form of invalidations, as the pending set, the outbox and the
 *	  ring carry them.
 *
 * Invalidations travel as a byte string of items, one after the other:
 *
 *		tag		1 byte	kind, plus ITEM_HAS_RULE when a rule follows
 *		rule	4 bytes	OID of the rule (little endian); without it the item
 *						belongs to the same rule as the item before it
 *		length	1-3 bytes	LEB128
 *		bytes	length bytes
 *
 * The first item of a string always has ITEM_HAS_RULE; rule 0 stands for a key
 * that no rule made (invalidate_keys).  The form is read back from disk by the
 * worker, so the decoder trusts nothing: a string that does not parse is
 * reported, never followed.
 */
#ifndef UNCACHE_ITEM_H
#define UNCACHE_ITEM_H

#include "postgres.h"

typedef enum ItemKind
{
	ITEM_KEY = 1,				/* a key, complete with prefix, in UTF-8 */
	ITEM_GLOB = 2,				/* a Redis glob from invalidate_pattern() */
	ITEM_KEYPATTERN = 3,		/* text of a key pattern (keypattern.h) */
	ITEM_FRAGMENT = 4,			/* piece of a key too long for one row */
} ItemKind;

#define ITEM_HAS_RULE	0x80

/* A rendered key may be this long; so no item's bytes are ever longer. */
#define ITEM_MAX_BYTES	(64 * 1024)

/* Room that any item's tag, rule and length need at most. */
#define ITEM_MAX_HEAD	(1 + 4 + 3)

typedef struct PackedItem
{
	ItemKind	kind;
	Oid			rule;			/* InvalidOid: none */
	const char *bytes;			/* not null-terminated */
	uint32		len;
} PackedItem;

/*
 * The bytes of an ITEM_FRAGMENT begin with this head.  Pieces other than the
 * last are FRAGMENT_BYTES long, so that piece offset / FRAGMENT_BYTES of a key is
 * in the chunk that many after the first.
 */
typedef struct FragmentHead
{
	uint32		total;			/* length of the whole */
	uint32		offset;			/* of this piece in it */
	uint32		kind;			/* ItemKind of the whole */
} FragmentHead;

/* With its two heads a piece fits into a row (OUTBOX_ROW_ITEMS); pieces on disk have this size. */
#define FRAGMENT_BYTES	7800

typedef struct ItemReader
{
	const char *next;
	const char *end;
	Oid			rule;
} ItemReader;

/*
 * Write an item at "to", which has room for ITEM_MAX_HEAD + item->len bytes.
 * "previous_rule" is the rule of the item before it, NULL for the first of a
 * string.  Returns the number of bytes written.
 */
extern size_t item_write(char *to, const PackedItem *item, const Oid *previous_rule);

extern void item_reader_init(ItemReader *reader, const char *bytes, size_t len);

/*
 * Read the next item.  Returns 1 and fills *item (whose bytes point into the
 * string), 0 at the end, -1 where the string is damaged.
 */
extern int	item_read(ItemReader *reader, PackedItem *item);

#endif							/* UNCACHE_ITEM_H */
