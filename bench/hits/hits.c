/*
 * hits.c
 *	  How often does a reader of one hot key hit, beside a writer of its row?
 *
 * One run: a writer updates the row at random times, so often a second; a reader looks for
 * the key at random times, so often a second, and fills it fenced on a miss: from the primary
 * or a standby, each read in a statement of its own or in a REPEATABLE READ transaction that
 * began before the miss.  Prints one line of CSV; --header prints the names of its fields.
 *
 * Without the fence's refusals a read hits unless a write came since the read before: the
 * field "possible" has that share, from the same random times.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

static double writes_per_second;
static double ends_at;
static const char *primary;
static atomic_ulong writes;

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* Wait as if events came independently of each other, so many a second. */
static void
pause_at_random(double per_second, unsigned int *seed)
{
	double		seconds = -log(1 - rand_r(seed) / (RAND_MAX + 1.0)) / per_second;

	usleep(seconds < 2 ? seconds * 1e6 : 2e6);
}

static PGconn *
connect_to(const char *where)
{
	PGconn	   *conn = PQconnectdb(where);

	if (PQstatus(conn) != CONNECTION_OK)
		die("connection", PQerrorMessage(conn));
	return conn;
}

static PGresult *
run(PGconn *conn, const char *sql, const char *parameter)
{
	PGresult   *result = PQexecParams(conn, sql, parameter ? 1 : 0, NULL, &parameter, NULL,
									  NULL, 0);
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		die(sql, PQerrorMessage(conn));
	return result;
}

static void *
write_rows(void *arg)
{
	PGconn	   *conn = connect_to(primary);
	unsigned int seed = 1;

	while (now() < ends_at)
	{
		pause_at_random(writes_per_second, &seed);
		PQclear(run(conn, "UPDATE hot SET version = version + 1 WHERE id = 1", NULL));
		atomic_fetch_add(&writes, 1);
	}
	PQfinish(conn);
	return NULL;
}

static redisReply *
ask(redisContext *redis, int argc, const char **argv)
{
	redisReply *reply = redisCommandArgv(redis, argc, argv, NULL);

	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		die(argv[1], reply ? reply->str : redis->errstr);
	return reply;
}

/* Returns 1 for a hit, 0 for a miss that was filled, -1 for one that was refused. */
static int
read_key(redisContext *redis, PGconn *conn, bool repeatable)
{
	const char *get[] = {"FCALL", "uncache_get", "1", "hot:1"};
	const char *set[] = {"FCALL", "uncache_set", "1", "hot:1", "", "300000", ""};
	redisReply *reply;
	PGresult   *row;
	int			outcome = 1;

	/* The transaction has read something before the application looks into the cache. */
	if (repeatable)
	{
		PQclear(run(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ", NULL));
		PQclear(run(conn, "SELECT 1 FROM hot", NULL));
	}
	reply = ask(redis, 4, get);
	if (reply->elements == 2)
	{
		row = run(conn, "SELECT version, uncache.snapshot($1) FROM hot WHERE id = 1",
				  reply->element[1]->str ? reply->element[1]->str : "");
		set[4] = PQgetvalue(row, 0, 1);
		set[6] = PQgetvalue(row, 0, 0);
		freeReplyObject(reply);
		reply = ask(redis, 7, set);
		outcome = reply->integer == 1 ? 0 : -1;
		PQclear(row);
	}
	freeReplyObject(reply);
	if (repeatable)
		PQclear(run(conn, "COMMIT", NULL));
	return outcome;
}

int
main(int argc, char **argv)
{
	unsigned long reads = 0, hits = 0, refused = 0, possible = 0, seen = 0;
	unsigned int seed = 2;
	double		reads_per_second, seconds;
	pthread_t	writer;
	redisContext *redis;
	PGconn	   *conn;

	if (argc == 2 && strcmp(argv[1], "--header") == 0)
	{
		printf("lane,writes_per_second,reads,hit_percent,possible_percent,refused\n");
		return 0;
	}
	if (argc != 8)
		die("hits", "LANE WRITES/S READS/S SECONDS PRIMARY READER REDIS_SOCKET");
	writes_per_second = atof(argv[2]);
	reads_per_second = atof(argv[3]);
	seconds = atof(argv[4]);
	primary = argv[5];
	conn = connect_to(argv[6]);
	redis = redisConnectUnix(argv[7]);
	if (redis == NULL || redis->err)
		die("Redis", redis ? redis->errstr : "no memory");
	ends_at = now() + seconds;
	pthread_create(&writer, NULL, write_rows, NULL);
	while (now() < ends_at)
	{
		int			outcome;
		unsigned long written;

		pause_at_random(reads_per_second, &seed);
		written = atomic_load(&writes);
		outcome = read_key(redis, conn, strstr(argv[1], "repeatable") != NULL);
		reads++;
		hits += outcome == 1;
		refused += outcome == -1;
		possible += written == seen;
		seen = written;
	}
	pthread_join(writer, NULL);
	printf("%s,%g,%lu,%.1f,%.1f,%lu\n", argv[1], writes_per_second, reads,
		   100.0 * hits / reads, 100.0 * possible / reads, refused);
	return 0;
}
