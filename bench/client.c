/*
 * client.c
 *	  The application of the benches, where pgbench can't play it: one that talks
 *	  to PostgreSQL and to Redis.
 *
 *		client load CLIENTS SECONDS ROWS [REDIS]
 *			Each thread updates random rows for so long; given an address of
 *			Redis it also deletes the row's key itself, after the COMMIT.  Prints
 *			"transactions SECONDS p50 p99", the latter two in microseconds.
 *
 *		client latency TIMES ROWS REDIS LINK [delete]
 *			One row after the other: puts its key into Redis, updates it (and
 *			deletes the key itself), and takes the time from the commit being
 *			visible to Redis telling a subscriber at REDIS that the key is gone.
 *			LINK is the address for all but the subscriber.  Prints three numbers
 *			of microseconds for each: that time, and the round trips of a PING
 *			straight after another command and of one after a pause as long as the
 *			transaction before.
 *
 * An address is a port of the loopback, or the path of a Unix socket.
 * PostgreSQL is found by libpq's environment.  Any failure ends the program.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

static int	rows;
static const char *redis_address;

static void
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Nanoseconds, of the same clock that visible_at() in the server uses. */
static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static PGconn *
connect_postgres(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		fail("PostgreSQL: %s", PQerrorMessage(conn));
	return conn;
}

static PGresult *
query(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("PostgreSQL: %s", PQerrorMessage(conn));
	return result;
}

static redisContext *
connect_redis(const char *address)
{
	redisContext *link = *address == '/' ? redisConnectUnix(address) :
		redisConnect("127.0.0.1", atoi(address));

	if (link == NULL || link->err)
		fail("Redis: %s", link ? link->errstr : "out of memory");
	return link;
}

static void
redis(redisContext *link, const char *format,...)
{
	va_list		args;
	redisReply *reply;

	va_start(args, format);
	reply = redisvCommand(link, format, args);
	va_end(args);
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		fail("Redis: %s", reply ? reply->str : link->errstr);
	freeReplyObject(reply);
}

static void
update_row(PGconn *conn, int id)
{
	char		sql[100];

	snprintf(sql, sizeof(sql), "UPDATE bench.item SET n = n + 1 WHERE id = %d", id);
	PQclear(query(conn, sql));
}

/*
 * --------------------------------------------------------------------------
 * Load
 * --------------------------------------------------------------------------
 */

#define MAX_SAMPLES		1000000

typedef struct Thread
{
	pthread_t	thread;
	unsigned int seed;
	int64_t		end;
	int64_t		count;
	int64_t	   *samples;		/* ns, of the first MAX_SAMPLES */
} Thread;

static void *
run_thread(void *arg)
{
	Thread	   *self = arg;
	PGconn	   *conn = connect_postgres();
	redisContext *link = redis_address ? connect_redis(redis_address) : NULL;
	int64_t		before = now_ns();

	while (before < self->end)
	{
		int			id = 1 + rand_r(&self->seed) % rows;
		int64_t		after;

		update_row(conn, id);
		if (link)
			redis(link, "UNLINK item:%d", id);
		after = now_ns();
		if (self->count < MAX_SAMPLES)
			self->samples[self->count] = after - before;
		self->count++;
		before = after;
	}
	PQfinish(conn);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return x < y ? -1 : x > y;
}

static void
load(int clients, double seconds)
{
	Thread	   *threads = calloc(clients, sizeof(Thread));
	int64_t    *all = malloc(sizeof(int64_t) * MAX_SAMPLES * clients);
	int64_t		count = 0;
	int64_t		samples = 0;
	int64_t		start = now_ns();

	for (int i = 0; i < clients; i++)
	{
		threads[i].seed = (unsigned int) (start / 1000) + i;
		threads[i].end = start + (int64_t) (seconds * 1e9);
		threads[i].samples = malloc(sizeof(int64_t) * MAX_SAMPLES);
		pthread_create(&threads[i].thread, NULL, run_thread, &threads[i]);
	}
	for (int i = 0; i < clients; i++)
	{
		int64_t		n;

		pthread_join(threads[i].thread, NULL);
		n = threads[i].count < MAX_SAMPLES ? threads[i].count : MAX_SAMPLES;
		memcpy(all + samples, threads[i].samples, n * sizeof(int64_t));
		samples += n;
		count += threads[i].count;
	}
	if (samples == 0)
		fail("no transaction was made");
	qsort(all, samples, sizeof(int64_t), compare);
	printf("%lld %.6f %.1f %.1f\n", (long long) count, (now_ns() - start) / 1e9,
		   all[samples / 2] / 1e3, all[samples * 99 / 100] / 1e3);
}

/*
 * --------------------------------------------------------------------------
 * Latency
 * --------------------------------------------------------------------------
 */

/* Waits for the message that this key was deleted; returns when it came. */
static int64_t
wait_until_gone(redisContext *events, const char *key)
{
	for (;;)
	{
		redisReply *reply;
		int64_t		at;
		bool		found;

		if (redisGetReply(events, (void **) &reply) != REDIS_OK)
			fail("no message that key \"%s\" is gone: %s", key, events->errstr);
		at = now_ns();
		found = reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
			strcmp(reply->element[0]->str, "message") == 0 &&
			strcmp(reply->element[2]->str, key) == 0;
		freeReplyObject(reply);
		if (found)
			return at;
	}
}

/* The round trip of a PING. */
static int64_t
ping(redisContext *link)
{
	int64_t		before = now_ns();

	redis(link, "PING");
	return now_ns() - before;
}

static void
rest(int64_t ns)
{
	struct timespec pause = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	nanosleep(&pause, NULL);
}

static void
latency(int times, const char *link_address, bool delete)
{
	PGconn	   *conn = connect_postgres();
	redisContext *link = connect_redis(link_address);
	redisContext *events = connect_redis(redis_address);
	struct timeval deadline = {.tv_sec = 10};
	int64_t		pause = 0;

	redis(link, "CONFIG SET notify-keyspace-events Eg");
	redisSetTimeout(events, deadline);
	redis(events, "SUBSCRIBE __keyevent@0__:del");
	PQclear(query(conn, "LOAD 'uncache_bench'"));

	for (int i = 0; i < times; i++)
	{
		int			id = 1 + i % rows;
		char		key[40];
		int64_t		before;
		int64_t		hot;
		int64_t		rested;
		int64_t		gone;
		int64_t		visible;
		PGresult   *result;

		snprintf(key, sizeof(key), "item:%d", id);
		redis(link, "SET %s x", key);
		hot = ping(link);
		rest(pause);
		rested = ping(link);
		before = now_ns();
		update_row(conn, id);
		pause = now_ns() - before;
		if (delete)
			redis(link, "UNLINK %s", key);
		gone = wait_until_gone(events, key);
		result = query(conn, "SELECT bench.visible_at()");
		visible = atoll(PQgetvalue(result, 0, 0));
		PQclear(result);
		printf("%.1f %.1f %.1f\n", (gone - visible) / 1e3, hot / 1e3, rested / 1e3);
	}
	redis(link, "CONFIG SET notify-keyspace-events %s", "");
}

int
main(int argc, char **argv)
{
	if (argc >= 5 && strcmp(argv[1], "load") == 0)
	{
		rows = atoi(argv[4]);
		redis_address = argc > 5 ? argv[5] : NULL;
		load(atoi(argv[2]), atof(argv[3]));
	}
	else if (argc >= 6 && strcmp(argv[1], "latency") == 0)
	{
		rows = atoi(argv[3]);
		redis_address = argv[4];
		latency(atoi(argv[2]), argv[5], argc > 6);
	}
	else
		fail("usage: client load CLIENTS SECONDS ROWS [REDIS] | "
			 "latency TIMES ROWS REDIS LINK [delete]");
	return 0;
}
