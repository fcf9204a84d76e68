/*
 * outbox_damage.h
 *	  Parts of the outbox that can't be read, and what is done instead.
 *
 * Everything in here belongs to a worker.
 */
#ifndef UNCACHE_DAMAGE_H
#define UNCACHE_DAMAGE_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "storage/block.h"

#include "shmem/shmem.h"

/* Why a block is being read. */
typedef enum ReadingFor
{
	READING_NEWS,				/* something may have been committed into it */
	READING_AGAIN,				/* what it holds was looked for before */
	READING_TO_DISCARD,			/* nobody wants its keys */
} ReadingFor;

extern void outbox_damage_init(void);

/* Whether an error says that a block can't be read, and not that the worker can't go on. */
extern bool outbox_damage_is_meant(const ErrorData *error);

/* This block can't be read.  "reason" has no line break. */
extern void outbox_damage_note_block(int table, BlockNumber block, ReadingFor what, const char *reason);
extern bool outbox_damage_is_known(int table, BlockNumber block);

/* A row of this transaction can't be understood, or a part of a long key is missing. */
extern void outbox_damage_note_row(uint64 xid, const char *reason);

/* Whether what stands for the keys that were lost is still to be written to the outbox. */
extern bool outbox_damage_is_unanswered(void);

/* Write it, outside of a transaction.  Returns when to come again. */
extern TimestampTz outbox_damage_run(TimestampTz now);

/* Whether a table has such a block; to be forgotten with the table's content. */
extern bool outbox_damage_in_table(int table);
extern void outbox_damage_forget_table(int table);

#endif							/* UNCACHE_DAMAGE_H */
