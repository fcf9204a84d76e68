/*
 * drop_notice.h
 *	  What DROP TABLE says about the keys of the table.
 */
#ifndef UNCACHE_DROP_NOTICE_H
#define UNCACHE_DROP_NOTICE_H

/* Watch for tables being dropped; in _PG_init. */
extern void drop_notice_init(void);

#endif							/* UNCACHE_DROP_NOTICE_H */
