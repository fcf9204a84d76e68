/*
 * incarnation.h
 *	  The incarnation: one life of the server, as the fence counts lives.
 *
 * A random number, drawn at every start of the server (lineage.c).  Transaction ids are only
 * compared within one incarnation, since a crash or a promotion can lose commits
 * and give their numbers away again.  Each worker writes it into a row of its
 * database when it starts; readers take it from there under their own snapshot, so
 * that standbys agree with what they have replayed.  Where the row's table is locked the
 * worker delivers all the same: it names an incarnation that no snapshot has yet, so fills
 * are refused.
 */
#ifndef UNCACHE_INCARNATION_H
#define UNCACHE_INCARNATION_H

#include "postgres.h"
#include "utils/snapshot.h"

#include "shmem/shmem.h"

/* What a worker finds when it makes the incarnation known in its database. */
typedef enum IncarnationStart
{
	INCARNATION_LOCKED,			/* not known: another session has the table locked */
	INCARNATION_SAME,			/* another worker of this life was here before */
	INCARNATION_AFTER_SHUTDOWN, /* or several, with no crash in between */
	INCARNATION_AFTER_CRASH,	/* or promotion: commits may be lost */
} IncarnationStart;

/*
 * Both in one transaction of the worker: how this life began, and then, unless that is
 * INCARNATION_LOCKED or INCARNATION_SAME, make it known.
 */
extern IncarnationStart incarnation_look(void);
extern void incarnation_adopt(void);

/*
 * The incarnation that a snapshot sees, palloc'd; NULL where it sees none, or where the
 * table is locked: a reader does not wait for that.
 */
extern char *incarnation_seen_by(Snapshot snapshot);

#endif							/* UNCACHE_INCARNATION_H */
