/*
 * invalidation.h
 *	  The packed form of invalidations, as the pending set, the outbox and the
 *	  ring carry them.
 *
 * Invalidations travel as a byte string of items, one after the other:
 *
 *		tag		1 byte	kind, plus INVALIDATION_HAS_RULE when a rule follows
 *		rule	4 bytes	OID of the rule (little endian); without it the item
 *						belongs to the same rule as the item before it
 *		length	1-3 bytes	LEB128
 *		bytes	length bytes
 *
 * The first item of a string always has INVALIDATION_HAS_RULE; rule 0 stands for a key
 * that no rule made (invalidate_keys).  The form is read back from disk by the
 * worker, so the decoder trusts nothing: a string that does not parse is
 * reported, never followed.
 */
#ifndef UNCACHE_INVALIDATION_H
#define UNCACHE_INVALIDATION_H

#include "postgres.h"

typedef enum InvalidationKind
{
	INVALIDATION_KEY = 1,		/* a key, complete with prefix, in UTF-8 */
	INVALIDATION_GLOB = 2,		/* a Redis glob from invalidate_pattern() */
	INVALIDATION_KEYPATTERN = 3,	/* text of a key pattern (keypattern.h) */
	INVALIDATION_FRAGMENT = 4,	/* piece of an item too long for one row */
} InvalidationKind;

/* Which keys of Redis an item invalidates. */
typedef enum ItemKeys
{
	INVALIDATION_KEYS_ITSELF,	/* its bytes are the key, so it has a node */
	INVALIDATION_KEYS_FOUND,	/* those that a walk over all nodes finds */
	INVALIDATION_KEYS_OF_WHOLE, /* those of the item that it is a piece of */
} ItemKeys;

/* How the worker has them deleted. */
typedef enum ItemCommand
{
	/* UNLINK, or with the fence FCALL uncache_invalidate (batch.c) */
	INVALIDATION_UNLINK,
	/* SCAN, and UNLINK of the keys that it finds (pattern_queue.c) */
	INVALIDATION_SCAN,
	/* as its whole, once the pieces are together (delivery_fragments.c) */
	INVALIDATION_JOIN,
} ItemCommand;

/* What refuses a fill that has read the old row. */
typedef enum ItemFence
{
	/* the xid in the key's record; strict: before the commit, too */
	INVALIDATION_FENCE_RECORD,
	/* a new epoch, which voids all tokens; none before the commit */
	INVALIDATION_FENCE_EPOCH,
	/* that of the item that it is a piece of */
	INVALIDATION_FENCE_OF_WHOLE,
} ItemFence;

/*
 * What is true of all items of a kind.  Code that treats kinds differently asks for this, or
 * has a switch with every kind and no default: so the compiler finds each line that a new
 * kind has to go through.
 */
typedef struct ItemTraits
{
	const char *name;			/* in messages; NULL: there is no such kind */
	bool		may_be_cut;		/* into INVALIDATION_FRAGMENTs; else it must fit into a row */
	bool		is_awaited;		/* COMMIT may wait until it is delivered */
	bool		may_be_noted;	/* an overflow marker may stand for it (outbox_overflow.h) */
	ItemKeys	keys;
	ItemCommand command;
	ItemFence	fence;
} ItemTraits;

#define INVALIDATION_HAS_RULE	0x80

/* The longest key that a template may render; so no item has more bytes. */
#define INVALIDATION_MAX_BYTES	(64 * 1024)

/* Room that any item's tag, rule and length need at most. */
#define INVALIDATION_MAX_HEAD	(1 + 4 + 3)

typedef struct Invalidation
{
	InvalidationKind kind;
	Oid			rule;			/* InvalidOid: none */
	const char *bytes;			/* not null-terminated */
	uint32		len;
} Invalidation;

/*
 * The bytes of an INVALIDATION_FRAGMENT begin with this head.  Pieces other than the
 * last are FRAGMENT_BYTES long, so that piece offset / FRAGMENT_BYTES of an item is
 * in the chunk that many after the first.
 */
typedef struct FragmentHead
{
	uint32		total;			/* length of the whole */
	uint32		offset;			/* of this piece in it */
	uint32		kind;			/* InvalidationKind of the whole */
} FragmentHead;

/* With its two heads a piece fits into a row (OUTBOX_ROW_ITEMS); pieces on disk have this size. */
#define FRAGMENT_BYTES	7800

typedef struct InvalidationReader
{
	const char *next;
	const char *end;
	Oid			rule;
} InvalidationReader;

/* Of a kind that invalidation_read() has returned, or that the code names. */
extern const ItemTraits *invalidation_traits(InvalidationKind kind);

/*
 * Read the head of a piece, behind which its bytes follow.  Returns false where it makes no
 * sense; then *head means nothing.
 */
extern bool invalidation_read_head(const Invalidation *piece, FragmentHead *head);

/*
 * The same as invalidation_traits(), but for a piece the traits of its whole.  NULL: the
 * piece makes no sense.
 */
extern const ItemTraits *invalidation_traits_of_whole(const Invalidation *item);

/*
 * How many keys and patterns a string holds; one in pieces counts once.  Of a damaged
 * string, those before the damage.
 */
extern uint32 invalidation_count(const char *bytes, size_t len);

/*
 * Write an item at "to", which must have room for INVALIDATION_MAX_HEAD + item->len bytes.
 * "previous_rule" is the rule of the item before it, NULL for the first of a
 * string.  Returns the number of bytes written.
 */
extern size_t invalidation_write(char *to, const Invalidation *item, const Oid *previous_rule);

extern void invalidation_reader_init(InvalidationReader *reader, const char *bytes, size_t len);

/*
 * Read the next item.  Returns 1 and fills *item (whose bytes point into the
 * string), 0 at the end, -1 where the string is damaged.
 */
extern int	invalidation_read(InvalidationReader *reader, Invalidation *item);

#endif							/* UNCACHE_INVALIDATION_H */
