/*
 * fault_point.h
 *	  Named points in the code at which a test makes something go wrong.
 *
 * They exist only in a library built with make FAULT_POINTS=1; otherwise
 * FAULT_POINT() is nothing, and there is no setting uncache.fault_point.
 */
#ifndef UNCACHE_FAULT_POINT_H
#define UNCACHE_FAULT_POINT_H

#ifdef UNCACHE_FAULT_POINTS

/* Do what uncache.fault_point asks for at the point of this name. */
extern void fault_point_reached(const char *name);

/* Define uncache.fault_point; in _PG_init. */
extern void fault_point_define_setting(void);

#define FAULT_POINT(name)	fault_point_reached(name)

#else

#define FAULT_POINT(name)	((void) 0)
#define fault_point_define_setting()	((void) 0)

#endif

#endif							/* UNCACHE_FAULT_POINT_H */
