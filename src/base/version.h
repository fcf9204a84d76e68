/*
 * version.h
 *	  The version of this library, as pg_uncache.control has it.
 */
#ifndef UNCACHE_VERSION_H
#define UNCACHE_VERSION_H

#define UNCACHE_VERSION	"1.0"

#endif							/* UNCACHE_VERSION_H */
