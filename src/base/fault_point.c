/*
 * fault_point.c
 *	  Named points in the code at which a test makes something go wrong.
 *
 * uncache.fault_point = 'NAME:ACTION' (for a session by SET, for a worker by
 * ALTER SYSTEM), where ACTION is
 *
 *		kill9		the process ends, as if by kill -9 from outside
 *		stop		it stops; the test lets it go on with SIGCONT
 *		sleep_MS	it sleeps for so many milliseconds
 *		slow_MS		the same, each time
 *		error		an ERROR
 *		errors		the same, each time
 *		full		an ERROR as of a full disk, each time
 *		log			nothing; it leaves the file, see below
 *
 * A point strikes once ("slow", "errors" and "full" always).  It leaves the file
 * pg_uncache.fault.NAME in the data directory: that tells the test that the point was
 * reached, and keeps it from striking again, also after a restart.  To arm it again remove
 * the file.
 *
 * Some points lie behind the commit, where nothing may allocate memory or raise an error,
 * so nothing here does either, but for "error", "errors" and "full".  The points:
 *
 *		discard-counted		discard_backlog() without a worker: counted, not locked
 *		doubts-put			PRE_COMMIT, strict: the worker is told of the keys
 *		outbox-written		PRE_COMMIT, rows inserted; strict: keys are fenced
 *		prepare-written		PRE_PREPARE, rows inserted
 *		commit-visible		COMMIT, before the ring
 *		handed-over			COMMIT, after the ring or the marks
 *		waiting				row locks released, about to wait
 *		ring-taken			worker: an entry left the ring
 *		batch-sent			worker: commands are under way
 *		answered			worker: Redis has answered, the worker has not noted it
 *		announced			worker: an entry of the stream is answered, and not noted
 *		waiter-found		worker: about to count down for a waiter
 *		emptying-step		worker: some blocks of a retired table were checked
 *		emptying-locked		worker: ExclusiveLock on a table to be emptied
 *		emptied				worker: truncated, not committed
 *		side-inserting		worker: refused rows are in the table, in a subtransaction
 *		side-inserted		worker: refused rows moved, not committed
 *		side-written		worker: the same, committed, not remembered
 *		scan-step			worker: a step of the outbox has been read
 *		shared-memory		worker: about to ask for shared memory, for delivery_map.c
 */
#include "postgres.h"

#ifdef UNCACHE_FAULT_POINTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "base/fault_point.h"

#define MARK_PREFIX		"pg_uncache.fault."

static char *setting_fault_point;

/* The first process that reaches the point makes the file; the server runs in its directory. */
static bool
strikes(const char *name)
{
	char		path[MAXPGPATH];
	int			fd;

	snprintf(path, sizeof(path), MARK_PREFIX "%s", name);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static void
sleep_ms(int ms)
{
	for (int i = 0; i < ms; i++)
		pg_usleep(1000);
}

static void
act(const char *name, const char *action)
{
	if (strcmp(action, "kill9") == 0)
		kill(getpid(), SIGKILL);
	else if (strcmp(action, "stop") == 0)
		raise(SIGSTOP);
	else if (strncmp(action, "sleep_", 6) == 0)
		sleep_ms(atoi(action + 6));
	else if (strcmp(action, "error") == 0)
		elog(ERROR, "fault point \"%s\"", name);
}

void
fault_point_reached(const char *name)
{
	size_t		len = strlen(name);

	if (setting_fault_point == NULL ||
		strncmp(setting_fault_point, name, len) != 0 ||
		setting_fault_point[len] != ':')
		return;
	if (strikes(name))
		act(name, setting_fault_point + len + 1);
	if (strncmp(setting_fault_point + len + 1, "slow_", 5) == 0)
		sleep_ms(atoi(setting_fault_point + len + 6));
	if (strcmp(setting_fault_point + len + 1, "errors") == 0)
		elog(ERROR, "fault point \"%s\"", name);
	if (strcmp(setting_fault_point + len + 1, "full") == 0)
		ereport(ERROR, (errcode(ERRCODE_DISK_FULL), errmsg("%s", name)));
}

void
fault_point_define_setting(void)
{
	DefineCustomStringVariable("uncache.fault_point",
							   "What goes wrong, as NAME:ACTION.",
							   "For tests only.",
							   &setting_fault_point,
							   "",
							   PGC_SUSET, 0,
							   NULL, NULL, NULL);
}

#endif							/* UNCACHE_FAULT_POINTS */
