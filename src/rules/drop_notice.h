/*
 * drop_notice.h
 *	  What DROP TABLE says about the keys of the table.
 */
#ifndef UNCACHE_DROP_NOTICE_H
#define UNCACHE_DROP_NOTICE_H

/* Install the hook that remembers dropped rules.  Called by _PG_init(). */
extern void drop_notice_init(void);

/* Give the notices for the tables that a command has dropped.  Called by sql_drop. */
extern void drop_notice_emit(void);

#endif							/* UNCACHE_DROP_NOTICE_H */
