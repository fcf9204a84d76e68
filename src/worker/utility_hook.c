/*
 * utility_hook.c
 *	  Utility commands that matter to a worker.
 *
 * Three kinds of command matter to a worker:
 *
 *		needs the database without connections	the worker ends before it, and is
 *			(DROP, RENAME, SET TABLESPACE,		kept away until the transaction
 *			use as a template)					ends (database_hold.c)
 *		changes what a worker reads when it		the worker is started again after
 *			starts (settings, DROP EXTENSION)	the commit
 *		may make a database one to be served	the launcher looks into it after
 *			(CREATE EXTENSION, CREATE DATABASE)	the commit
 *
 * A transaction lists what is due after its commit, and forgets the list on abort.
 * The list is a hint: after a crash the launcher looks everywhere and every worker is
 * new, so nothing is lost with it.  An action of a savepoint that was rolled back
 * is carried out all the same and does no harm.  Of a prepared transaction only CREATE
 * EXTENSION takes effect, at its COMMIT PREPARED; a setting that it changed takes effect
 * at the worker's next start.
 *
 * The object access hook sees CREATE and DROP EXTENSION, because both also happen by
 * CASCADE, DROP SCHEMA and DROP OWNED.
 *
 * Without preloading there is no worker, and this file only warns of DROP EXTENSION.  On a
 * standby there is no worker either, and no such command succeeds.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#include "commit/commit.h"
#include "outbox/backlog.h"
#include "outbox/outbox_tables.h"
#include "shmem/shmem.h"
#include "worker/worker.h"
#include "worker/worker_int.h"

#define EXTENSION_NAME	"pg_uncache"
#define SETTING_PREFIX	"uncache."

/* What is to be done after this transaction's commit.  Lists are in TopTransactionContext. */
typedef struct Due
{
	List	   *look;			/* OIDs of databases for the launcher to probe */
	List	   *restart;		/* OIDs of databases whose worker is to be started again */
	bool		restart_all;
	bool		warned;			/* DROP EXTENSION has looked for undelivered rows */
} Due;

static Due	due;

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_object_access = NULL;

/*
 * --------------------------------------------------------------------------
 * After the commit
 * --------------------------------------------------------------------------
 */

static void
add_due(List **list, Oid dboid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	*list = list_append_unique_oid(*list, dboid);
	MemoryContextSwitchTo(old);
}

static void
request_restart(DatabaseState *database)
{
	pg_atomic_write_u32(&database->restart_requested, 1);
	shmem_wake_worker(database);
}

/* Nothing may fail here: no allocation, no heavyweight lock. */
static void
carry_out(void)
{
	ListCell   *lc;

	foreach(lc, due.restart)
	{
		DatabaseState *database = shmem_find_database(lfirst_oid(lc));

		if (database != NULL)
			request_restart(database);
	}
	for (int i = 0; due.restart_all && i < UncacheShmem->ndatabases; i++)
		request_restart(shmem_database(i));
	foreach(lc, due.look)
		shmem_request_launch(lfirst_oid(lc), false);
	/* A worker that has ended by an error is started at once now, without its pause. */
	if (due.restart != NIL || due.restart_all)
		shmem_wake_launcher();
}

static void
on_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (UncacheShmem != NULL)
				carry_out();
			memset(&due, 0, sizeof(Due));
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			memset(&due, 0, sizeof(Due));
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

/*
 * --------------------------------------------------------------------------
 * CREATE EXTENSION and DROP EXTENSION
 * --------------------------------------------------------------------------
 */

static bool
is_outbox_table(Oid relation)
{
	for (int i = 0; i <= OUTBOX_SIDE; i++)
	{
		if (outbox_table_oid(i) == relation)
			return true;
	}
	return false;
}

/*
 * The first outbox table is about to be dropped, and so the extension: the other tables
 * can still be read.
 */
static void
warn_of_backlog(void)
{
	uint64		rows;

	if (due.warned)
		return;
	due.warned = true;

	rows = backlog_rows();
	if (rows > 0)
		ereport(WARNING,
				(errmsg_plural("dropping the outbox with " UINT64_FORMAT " undelivered row",
							   "dropping the outbox with " UINT64_FORMAT " undelivered rows",
							   rows, rows),
				 errdetail("The keys in it are not deleted from Redis."),
				 errhint("Let SELECT uncache.wait() return true before DROP EXTENSION, or delete "
						 "the keys by hand.")));
}

static void
on_drop(Oid class, Oid object)
{
	char	   *extension;

	if (class == RelationRelationId && is_outbox_table(object))
		warn_of_backlog();
	if (class != ExtensionRelationId)
		return;

	extension = get_extension_name(object);
	if (extension != NULL && strcmp(extension, EXTENSION_NAME) == 0)
		add_due(&due.restart, MyDatabaseId);
}

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (next_object_access)
		next_object_access(access, class, object, sub, arg);

	if (access == OAT_DROP && sub == 0)
		on_drop(class, object);
	/* The name of a new extension can't be looked up yet, so any counts. */
	if (access == OAT_POST_CREATE && class == ExtensionRelationId)
		add_due(&due.look, MyDatabaseId);
}

/*
 * --------------------------------------------------------------------------
 * Commands that need a database alone
 * --------------------------------------------------------------------------
 */

/* The name of the database that CREATE DATABASE copies. */
static const char *
template_of(CreatedbStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return "template1";
}

static bool
has_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, name) == 0)
			return true;
	}
	return false;
}

/*
 * Hold a database if the command may succeed.  A user who does not own the database must
 * not disturb its worker; the user's command fails, or copies a template, which has no
 * worker.
 */
static LeftBehind
hold_named(const char *name, LOCKMODE mode)
{
	Oid			dboid = get_database_oid(name, true);

	if (!OidIsValid(dboid) ||
		!object_ownercheck(DatabaseRelationId, dboid, GetUserId()))
		return LEFT_UNKNOWN;
	/* Only CREATE DATABASE may name the current database; the other commands fail. */
	if (dboid == MyDatabaseId && mode == AccessExclusiveLock)
		return LEFT_UNKNOWN;
	return database_hold(dboid, mode);
}

static void
before_dropdb(const char *name)
{
	if (hold_named(name, AccessExclusiveLock) == LEFT_SOMETHING)
		ereport(WARNING,
				(errmsg("dropping database \"%s\" with an outbox that is not delivered", name),
				 errdetail("The keys in it are not deleted from Redis."),
				 errhint("Let SELECT uncache.wait() return true in a database before DROP "
						 "DATABASE, or delete the keys by hand.")));
}

static void
before_command(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			before_dropdb(((DropdbStmt *) stmt)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				(void) hold_named(((RenameStmt *) stmt)->subname, AccessExclusiveLock);
			break;
		case T_AlterDatabaseStmt:
			if (has_option(((AlterDatabaseStmt *) stmt)->options, "tablespace"))
				(void) hold_named(((AlterDatabaseStmt *) stmt)->dbname, AccessExclusiveLock);
			break;
		case T_CreatedbStmt:
			(void) hold_named(template_of((CreatedbStmt *) stmt), ShareLock);
			break;
		default:
			break;
	}
}

/*
 * --------------------------------------------------------------------------
 * Commands whose effect a worker sees when it starts
 * --------------------------------------------------------------------------
 */

static bool
sets_ours(const VariableSetStmt *set)
{
	return set->kind == VAR_RESET_ALL ||
		(set->name != NULL &&
		 pg_strncasecmp(set->name, SETTING_PREFIX, strlen(SETTING_PREFIX)) == 0);
}

/* The worker runs as the bootstrap superuser, so the settings of that role are its own. */
static void
role_settings_changed(AlterRoleSetStmt *stmt)
{
	if (!sets_ours(stmt->setstmt) ||
		(stmt->role != NULL &&
		 get_rolespec_oid(stmt->role, true) != BOOTSTRAP_SUPERUSERID))
		return;
	if (stmt->database == NULL)
		due.restart_all = true;
	else
		add_due(&due.restart, get_database_oid(stmt->database, true));
}

/* ALLOW_CONNECTIONS and IS_TEMPLATE decide whether a database is served. */
static void
database_changed(AlterDatabaseStmt *stmt)
{
	Oid			dboid;

	if (!has_option(stmt->options, "allow_connections") &&
		!has_option(stmt->options, "is_template"))
		return;
	dboid = get_database_oid(stmt->dbname, true);
	add_due(&due.restart, dboid);
	add_due(&due.look, dboid);
}

/* A copy of a template has the extension, without CREATE EXTENSION, if the template has it. */
static void
database_created(CreatedbStmt *stmt)
{
	CommandCounterIncrement();
	add_due(&due.look, get_database_oid(stmt->dbname, true));
}

static void
after_command(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
			database_created((CreatedbStmt *) stmt);
			break;
		case T_AlterDatabaseStmt:
			database_changed((AlterDatabaseStmt *) stmt);
			break;
		case T_AlterDatabaseSetStmt:
			if (sets_ours(((AlterDatabaseSetStmt *) stmt)->setstmt))
				add_due(&due.restart,
						get_database_oid(((AlterDatabaseSetStmt *) stmt)->dbname, true));
			break;
		case T_AlterRoleSetStmt:
			role_settings_changed((AlterRoleSetStmt *) stmt);
			break;
		case T_AlterExtensionStmt:
			if (strcmp(((AlterExtensionStmt *) stmt)->extname, EXTENSION_NAME) == 0)
				add_due(&due.restart, MyDatabaseId);
			break;
		default:
			break;
	}
}

/*
 * No transaction callback runs when a prepared transaction is finished.  It may have
 * created the extension, so the launcher is asked to probe a database that has no worker.
 */
static void
prepared_finished(void)
{
	if (shmem_my_database() != NULL || OidIsValid(get_extension_oid(EXTENSION_NAME, true)))
		handover_side();
}

static bool
finishes_prepared(Node *stmt)
{
	return IsA(stmt, TransactionStmt) &&
		(((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((TransactionStmt *) stmt)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/*
 * Whether before_command() or after_command() looks at the statement.  A command that ends
 * transactions is none of these: it may free its statement's memory.
 */
static bool
is_watched(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
		case T_RenameStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_AlterDatabaseSetStmt:
		case T_AlterRoleSetStmt:
		case T_AlterExtensionStmt:
			return UncacheShmem != NULL && !RecoveryInProgress();
		default:
			return false;
	}
}

static void
on_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	bool		watched = is_watched(stmt);
	bool		prepared = UncacheShmem != NULL && finishes_prepared(stmt);

	if (watched)
		before_command(stmt);
	if (next_utility)
		next_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);

	if (watched)
		after_command(stmt);
	if (prepared)
		prepared_finished();
}

void
utility_hook_init(void)
{
	database_hold_init();
	RegisterXactCallback(on_xact_end, NULL);
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
}
