/*
 * drop_notice.h
 *	  What DROP TABLE says about the keys of the table.
 */
#ifndef UNCACHE_DROP_NOTICE_H
#define UNCACHE_DROP_NOTICE_H

/* Watch for rules being dropped; in _PG_init. */
extern void drop_notice_init(void);

/* After a command: give the notices for tables that it has dropped. */
extern void drop_notice_emit(void);

#endif							/* UNCACHE_DROP_NOTICE_H */
