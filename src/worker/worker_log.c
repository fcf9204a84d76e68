/*
 * worker_log.c
 *	  Log messages of a worker name its database.
 *
 * log_line_prefix has %d for that, but it is empty in a background process.  So this file
 * puts the name in front of every message that is on its way to the log, those of
 * PostgreSQL itself included: without it an administrator of fifty databases would not know
 * which outbox an error is about.
 *
 * A message may quote Redis, with any bytes: this file makes them valid text, too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/elog.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/log_text.h"
#include "worker/worker_int.h"

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

		log_text_copy(text, size, edata->message);
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
