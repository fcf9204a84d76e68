/*
 * worker_log.h
 *	  What the log says of a worker names its database.
 */
#ifndef UNCACHE_WORKERLOG_H
#define UNCACHE_WORKERLOG_H

/* For the rest of this process; the name is that of its database now. */
extern void worker_log_init(void);

#endif							/* UNCACHE_WORKERLOG_H */
