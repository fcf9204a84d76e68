/*
 * database_probe.h
 *	  Looking into a database for the extension, on behalf of the launcher.
 */
#ifndef UNCACHE_PROBE_H
#define UNCACHE_PROBE_H

#include "postgres.h"

typedef enum ProbeResult
{
	PROBE_RUNNING,
	PROBE_FOUND,				/* the database has the extension */
	PROBE_ABSENT,				/* it does not */
	PROBE_FAILED,				/* could not be found out; see the server log */
} ProbeResult;

/*
 * Start looking; one at a time.  The launcher's latch is set when there is an
 * answer.  Returns false where no background worker process is left.
 */
extern bool database_probe_start(Oid dboid);

/* What became of the probe that was started; ask until it is not PROBE_RUNNING. */
extern ProbeResult database_probe_result(void);

/* Entry point of the background worker; arg is the database's OID. */
extern PGDLLEXPORT void uncache_probe_main(Datum arg);

#endif							/* UNCACHE_PROBE_H */
