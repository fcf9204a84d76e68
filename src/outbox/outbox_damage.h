/*
 * outbox_damage.h
 *	  Parts of the outbox that can't be read, and what the worker deletes instead.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_OUTBOX_DAMAGE_H
#define UNCACHE_OUTBOX_DAMAGE_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/block.h"

#include "shmem/shmem.h"

/* Why a block is being read. */
typedef enum ReadingFor
{
	READING_NEWS,				/* it may have rows that are not known yet */
	READING_AGAIN,				/* all its rows were read before */
	READING_TO_DISCARD,			/* its keys are being discarded */
} ReadingFor;

extern void outbox_damage_init(void);

/* Whether this error means that a block can't be read, rather than that memory is short. */
extern bool outbox_damage_is_meant(const ErrorData *error);

/* This block can't be read.  "reason" has no line break. */
extern void outbox_damage_note_block(int table, BlockNumber block, ReadingFor what,
									 const char *reason);
extern bool outbox_damage_is_known(int table, BlockNumber block);

/* A row of this transaction can't be decoded, or a fragment of a long key is missing. */
extern void outbox_damage_note_row(uint64 xid, const char *reason);

/* Whether the patterns for the keys that were lost are still to be written to the outbox. */
extern bool outbox_damage_is_unanswered(void);

/* Write them, outside of a transaction.  Returns when to run again. */
extern TimestampTz outbox_damage_run(TimestampTz now);

/* Whether a table has a damaged block; forget them when the table is truncated. */
extern bool outbox_damage_in_table(int table);
extern void outbox_damage_forget_table(int table);

#endif							/* UNCACHE_OUTBOX_DAMAGE_H */
