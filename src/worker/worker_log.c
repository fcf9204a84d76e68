/*
 * worker_log.c
 *	  What the log says of a worker names its database.
 *
 * log_line_prefix has %d for that, but it is empty in a background process.  So every
 * message on its way to the log gets the name in front, those of PostgreSQL itself
 * included: an error in the outbox of one of fifty databases is no use without.
 *
 * What Redis has said may be in it, with any bytes: they are made text here, too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/elog.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "shmem/shmem.h"
#include "worker/worker_log.h"

static emit_log_hook_type next_hook = NULL;
static char *database = NULL;

/* In the memory of the message, which is the current context. */
static void
name_database(ErrorData *edata)
{
	if (edata->message != NULL)
	{
		Size		size = strlen(edata->message) + 1;
		char	   *text = palloc(size);

		shmem_copy_text(text, size, edata->message);
		edata->message = psprintf("database \"%s\": %s", database, text);
	}
	if (next_hook)
		next_hook(edata);
}

void
worker_log_init(void)
{
	StartTransactionCommand();
	database = MemoryContextStrdup(TopMemoryContext, get_database_name(MyDatabaseId));
	CommitTransactionCommand();
	next_hook = emit_log_hook;
	emit_log_hook = name_database;
}
