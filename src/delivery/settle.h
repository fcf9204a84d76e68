/*
 * settle.h
 *	  What follows from the end of a delivery: the one place that decides it.
 */
#ifndef UNCACHE_SETTLE_H
#define UNCACHE_SETTLE_H

/*
 * Settle every delivery that has ended since the last call, and let go of the waiters of those of
 * which only parts are left that nobody waits for.  Takes, sends and calls back nothing.  Called
 * by the worker after each step of its turn in which answers arrive or links break.
 */
extern void settle_run(void);

#endif							/* UNCACHE_SETTLE_H */
