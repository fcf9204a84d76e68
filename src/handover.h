/*
 * handover.h
 *	  Telling the worker what a transaction has left in the outbox.
 */
#ifndef UNCACHE_HANDOVER_H
#define UNCACHE_HANDOVER_H

#include "outbox.h"

/*
 * Hand over these rows, which are committed: into the ring, or as marks on their
 * blocks.  "wait": this session would like an answer.  Returns whether there is a
 * worker that will give one.  Never raises.
 */
extern bool handover(const OutboxWritten *written, bool wait);

#endif							/* UNCACHE_HANDOVER_H */
