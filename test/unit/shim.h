/*
 * shim.h
 *	  What shim.c lets a test see and do.
 */
#ifndef UNCACHE_TEST_SHIM_H
#define UNCACHE_TEST_SHIM_H

extern int	shim_external_fds;	/* AcquireExternalFD() less ReleaseExternalFD() */
extern bool shim_refuse_fds;	/* let AcquireExternalFD() fail */

#endif							/* UNCACHE_TEST_SHIM_H */
