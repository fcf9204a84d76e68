/*
 * utility_hook.h
 *	  Utility commands that the worker must know of: DROP and RENAME DATABASE,
 *	  use as a template, CREATE and DROP EXTENSION, settings of a database,
 *	  COMMIT PREPARED.
 */
#ifndef UNCACHE_LIFECYCLE_H
#define UNCACHE_LIFECYCLE_H

/* Install the hooks; in _PG_init, also where the library is not preloaded. */
extern void utility_hook_init(void);

#endif							/* UNCACHE_LIFECYCLE_H */
