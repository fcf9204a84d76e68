/*
 * staleness.c
 *	  How often do readers of a cache see what is out of date?
 *
 * One run of one strategy: sessions (threads, each with its own connections to
 * PostgreSQL and Redis) read and write a few rows through a cache-aside cache for
 * some seconds.  Between a reader's look at the database and its store there is
 * a pause of random length, as a busy application has them.
 *
 * The oracle is a table of versions in this program's memory.  A writer raises a
 * row's version in the database by one and notes it here when COMMIT has returned
 * (unless with a WARNING).  A read is stale when it returns a version below the
 * one that was noted here before the read began.  Of readers in REPEATABLE READ and on
 * a standby only the hits count: what they find in the database may be old.
 * When all sessions have stopped and everything is delivered, whatever the cache still has
 * is compared with the database: a key that differs is stuck.
 *
 * Prints one line of CSV; --header prints the names of its fields.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

#define KEYS			64
#define TTL_SECONDS		300
#define MAX_AGES		100000	/* of stale reads, per session */
#define DOUBLE_DELAY_US 20000	/* between the deletes of a double delete */
#define DIES_EVERY		1000	/* writes, for an application that dies */
#define MAX_LATER		256
#define LIST_ROWS		8		/* rows of one page, which is below one nonce */
#define READS_PER_SNAPSHOT 5	/* of a REPEATABLE READ transaction */

typedef enum Order
{
	DELETE_BEFORE,				/* the application deletes, then updates */
	DELETE_AFTER,
	DELETE_DYING,				/* likewise, but now and then it dies in between */
	DELETE_TWICE,
	DELETE_NOT,					/* pg_uncache does */
} Order;

static const struct Strategy
{
	const char *name;
	Order		order;
	const char *consistency;
	bool		fenced;
	bool		lists;			/* pages below a nonce, as in docs/lists.md */
}			strategies[] = {
	{"delete, then update", DELETE_BEFORE, "eventual", false, false},
	{"update, then delete", DELETE_AFTER, "eventual", false, false},
	{"update, then delete, dying", DELETE_DYING, "eventual", false, false},
	{"double delete", DELETE_TWICE, "eventual", false, false},
	{"pg_uncache eventual", DELETE_NOT, "eventual", false, false},
	{"pg_uncache read_your_writes", DELETE_NOT, "read_your_writes", false, false},
	{"pg_uncache fenced", DELETE_NOT, "read_your_writes", true, false},
	{"pg_uncache strict", DELETE_NOT, "strict", true, false},
	{"lists, pages stored by SET", DELETE_NOT, "read_your_writes", false, true},
	{"lists, fenced tags", DELETE_NOT, "read_your_writes", true, true},
};

/* With lists the sessions are of three kinds, in turn. */
typedef enum Kind
{
	FRESH,						/* reads and writes on the primary */
	REPEATABLE,					/* reads with snapshots of before */
	STANDBY,
} Kind;

typedef struct Session
{
	pthread_t	thread;
	unsigned short random[3];
	PGconn	   *pg;
	redisContext *redis;
	Kind		kind;
	int			reads_left;		/* of the REPEATABLE READ transaction */
	bool		warned;			/* the last statement gave a WARNING */
	uint64_t	reads;
	uint64_t	stale;
	uint64_t	hits;
	uint64_t	fills;
	uint64_t	refused;
	uint64_t	writes;
	uint64_t	failed;			/* writes that were rolled back */
	double	   *ages;			/* of stale reads, in seconds */
	int			nages;
	struct
	{
		int			key;
		double		due;
	}			later[MAX_LATER];	/* second deletes */
	int			nlater;
} Session;

static const struct Strategy *strategy;
static const char *conninfo;
static const char *standby;
static const char *socket_path;
static int	nsessions;
static double seconds;
static double write_share = 0.1;
static int	pause_us = 4000;
static atomic_bool stop;
static _Atomic uint64_t oracle[KEYS];
static _Atomic double committed_at[KEYS];

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "staleness: %s: %s\n", what, why);
	exit(1);
}

/* ----- the two servers ----- */

static void
note_notice(void *arg, const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

	if (severity && strcmp(severity, "WARNING") == 0)
		((Session *) arg)->warned = true;
}

static void
connect_session(Session *session)
{
	session->pg = PQconnectdb(session->kind == STANDBY ? standby : conninfo);
	if (PQstatus(session->pg) != CONNECTION_OK)
		die("PostgreSQL", PQerrorMessage(session->pg));
	PQsetNoticeReceiver(session->pg, note_notice, session);
	session->redis = redisConnectUnix(socket_path);
	if (session->redis == NULL || session->redis->err)
		die("Redis", session->redis ? session->redis->errstr : "out of memory");
}

/* One value of one row; NULL where the statement failed.  To be freed. */
static char *
query(Session *session, const char *sql, const char *a, const char *b, char **second)
{
	const char *params[] = {a, b};
	PGresult   *result = PQexecParams(session->pg, sql, b ? 2 : a ? 1 : 0, NULL, params,
									  NULL, NULL, 0);
	char	   *value = NULL;

	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
	{
		value = strdup(PQgetvalue(result, 0, 0));
		if (second)
			*second = PQgetisnull(result, 0, 1) ? NULL : strdup(PQgetvalue(result, 0, 1));
	}
	PQclear(result);
	return value;
}

static redisReply *
ask(Session *session, const char *format,...)
{
	va_list		args;
	redisReply *reply;

	va_start(args, format);
	reply = redisvCommand(session->redis, format, args);
	va_end(args);
	if (reply == NULL)
		die("Redis", session->redis->errstr);
	return reply;
}

static long long
ask_number(Session *session, const char *format, int key)
{
	redisReply *reply = ask(session, format, key);
	long long	number = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;

	freeReplyObject(reply);
	return number;
}

/* ----- writing ----- */

static void
delete_key(Session *session, int key)
{
	ask_number(session, "DEL stale:%d", key);
}

static void
delete_later(Session *session, int key)
{
	if (session->nlater == MAX_LATER)
		return;
	session->later[session->nlater].key = key;
	session->later[session->nlater++].due = now() + DOUBLE_DELAY_US / 1e6;
}

static void
delete_what_is_due(Session *session, bool all)
{
	int			kept = 0;

	for (int i = 0; i < session->nlater; i++)
	{
		if (all || session->later[i].due <= now())
			delete_key(session, session->later[i].key);
		else
			session->later[kept++] = session->later[i];
	}
	session->nlater = kept;
}

static void
note_commit(int key, uint64_t version)
{
	uint64_t	known = atomic_load(&oracle[key]);

	while (known < version)
	{
		if (atomic_compare_exchange_weak(&oracle[key], &known, version))
		{
			atomic_store(&committed_at[key], now());
			return;
		}
	}
}

static void
write_row(Session *session, int key)
{
	char		id[12];
	char	   *version;

	snprintf(id, sizeof(id), "%d", key);
	if (strategy->order == DELETE_BEFORE)
		delete_key(session, key);

	session->warned = false;
	version = query(session, strategy->lists ?
					"UPDATE listed SET version = version + 1 WHERE id = $1 RETURNING version" :
					"UPDATE stale SET version = version + 1 WHERE id = $1 RETURNING version",
					id, NULL, NULL);
	if (version == NULL)
	{
		session->failed++;
		return;
	}
	session->writes++;

	if (strategy->order == DELETE_DYING && nrand48(session->random) % DIES_EVERY == 0)
		;						/* it died here; another session goes on */
	else if (strategy->order == DELETE_AFTER || strategy->order == DELETE_DYING ||
			 strategy->order == DELETE_TWICE)
		delete_key(session, key);
	if (strategy->order == DELETE_TWICE)
		delete_later(session, key);
	/* An application that deletes has written when it has deleted. */
	if (!session->warned)
		note_commit(key, strtoull(version, NULL, 10));
	free(version);
}

/* ----- reading ----- */

/* Some readers are slow: one in four pauses up to pause_us, one in 100 ten times that. */
static void
pause_a_while(Session *session)
{
	long		draw = nrand48(session->random) % 100;
	int			most = draw == 0 ? pause_us * 10 : draw < 25 ? pause_us : 0;

	if (most > 0)
		usleep((useconds_t) (nrand48(session->random) % most));
}

static uint64_t
read_plain(Session *session, int key)
{
	char		id[12];
	redisReply *reply = ask(session, "GET stale:%d", key);
	char	   *value;
	uint64_t	version;

	if (reply->type == REDIS_REPLY_STRING)
	{
		version = strtoull(reply->str, NULL, 10);
		freeReplyObject(reply);
		session->hits++;
		return version;
	}
	freeReplyObject(reply);

	snprintf(id, sizeof(id), "%d", key);
	value = query(session, "SELECT version FROM stale WHERE id = $1", id, NULL, NULL);
	if (value == NULL)
		die("SELECT", PQerrorMessage(session->pg));
	pause_a_while(session);
	freeReplyObject(ask(session, "SET stale:%d %s EX %d", key, value, TTL_SECONDS));
	session->fills++;
	version = strtoull(value, NULL, 10);
	free(value);
	return version;
}

static uint64_t
read_fenced(Session *session, int key)
{
	char		id[12];
	redisReply *reply = ask(session, "FCALL uncache_get 1 stale:%d", key);
	const char *token = NULL;
	char	   *snapshot = NULL;
	char	   *value;
	uint64_t	version;

	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1)
	{
		version = strtoull(reply->element[0]->str, NULL, 10);
		freeReplyObject(reply);
		session->hits++;
		return version;
	}
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
		reply->element[1]->type == REDIS_REPLY_STRING)
		token = reply->element[1]->str;

	snprintf(id, sizeof(id), "%d", key);
	value = query(session, "SELECT version, uncache.snapshot($2) FROM stale WHERE id = $1",
				  id, token ? token : "", &snapshot);
	freeReplyObject(reply);
	if (value == NULL)
		die("SELECT", PQerrorMessage(session->pg));
	pause_a_while(session);
	if (snapshot)
	{
		reply = ask(session, "FCALL uncache_set 1 stale:%d %s %d %s", key, snapshot,
					TTL_SECONDS * 1000, value);
		if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 1)
			session->fills++;
		else
			session->refused++;
		freeReplyObject(reply);
		free(snapshot);
	}
	else
		session->refused++;
	version = strtoull(value, NULL, 10);
	free(value);
	return version;
}

/* The value of a key, or NULL and perhaps a token for its fill.  Both to be freed. */
static char *
look_up(Session *session, const char *key, char **token)
{
	redisReply *reply = ask(session, "FCALL uncache_get 1 %s", key);
	char	   *value = NULL;

	*token = NULL;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1)
		value = strdup(reply->element[0]->str);
	else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
			 reply->element[1]->type == REDIS_REPLY_STRING)
		*token = strdup(reply->element[1]->str);
	freeReplyObject(reply);
	return value;
}

static bool
fill(Session *session, const char *key, const char *snapshot, const char *value)
{
	redisReply *reply = ask(session, "FCALL uncache_set 1 %s %s %d %s", key, snapshot,
							TTL_SECONDS * 1000, value);
	bool		stored = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;

	freeReplyObject(reply);
	if (stored)
		session->fills++;
	else
		session->refused++;
	return stored;
}

/* The nonce in force, perhaps a new one; NULL where none could be stored.  To be freed. */
static char *
read_nonce(Session *session, int tag)
{
	char		key[16];
	char		fresh[2 * sizeof(uint64_t) + 1];
	char	   *token;
	char	   *snapshot = NULL;
	char	   *nonce;
	uint64_t	random;

	snprintf(key, sizeof(key), "gen:%d", tag);
	nonce = look_up(session, key, &token);
	if (nonce || token == NULL)
		return nonce;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		die("getrandom", strerror(errno));
	snprintf(fresh, sizeof(fresh), "%016llx", (unsigned long long) random);
	nonce = query(session, "SELECT $1::text, uncache.snapshot($2)", fresh, token, &snapshot);
	free(token);
	if (nonce && (snapshot == NULL || !fill(session, key, snapshot, nonce)))
	{
		free(nonce);
		nonce = NULL;
	}
	free(snapshot);
	return nonce;
}

/* Version of the row in a page, which is a list of them. */
static uint64_t
version_in(const char *page, int key)
{
	for (int i = 0; i < key % LIST_ROWS; i++)
		page = strchr(page, ',') + 1;
	return strtoull(page, NULL, 10);
}

static char *
query_page(Session *session, int tag, const char *token, char **snapshot)
{
	char		tag_text[12];

	snprintf(tag_text, sizeof(tag_text), "%d", tag);
	return query(session, "SELECT string_agg(version::text, ',' ORDER BY id), "
				 "uncache.snapshot($2) FROM listed WHERE id / 8 = $1::int",
				 tag_text, token ? token : "", snapshot);
}

/* Take a snapshot that the reads to come will have. */
static void
begin_repeatable(Session *session)
{
	if (session->kind != REPEATABLE || session->reads_left-- > 0)
		return;
	PQclear(PQexec(session->pg, "COMMIT"));
	PQclear(PQexec(session->pg, "BEGIN ISOLATION LEVEL REPEATABLE READ"));
	PQclear(PQexec(session->pg, "SELECT 1"));
	session->reads_left = READS_PER_SNAPSHOT;
}

/* In the order of docs/lists.md: the page's token comes after its nonce. */
static uint64_t
read_listed(Session *session, int key, bool *is_hit)
{
	int			tag = key / LIST_ROWS;
	char		name[48];
	char	   *token = NULL;
	char	   *snapshot = NULL;
	char	   *page = NULL;
	char	   *nonce;
	uint64_t	version;

	begin_repeatable(session);
	nonce = read_nonce(session, tag);
	if (nonce)
	{
		snprintf(name, sizeof(name), "list:%d:%s", tag, nonce);
		page = look_up(session, name, &token);
	}
	*is_hit = page != NULL;
	if (page == NULL)
	{
		page = query_page(session, tag, token, &snapshot);
		if (page == NULL)
			die("SELECT", PQerrorMessage(session->pg));
		pause_a_while(session);
		if (nonce && !strategy->fenced)
			freeReplyObject(ask(session, "SET %s %s EX %d", name, page, TTL_SECONDS));
		else if (snapshot)
			fill(session, name, snapshot, page);
	}
	version = version_in(page, key);
	free(page);
	free(nonce);
	free(token);
	free(snapshot);
	return version;
}

static void
read_row(Session *session, int key)
{
	uint64_t	expected = atomic_load(&oracle[key]);
	double		since = atomic_load(&committed_at[key]);
	bool		is_hit = false;
	uint64_t	version = strategy->lists ? read_listed(session, key, &is_hit) :
		strategy->fenced ? read_fenced(session, key) : read_plain(session, key);

	session->reads++;
	if (strategy->lists)
		session->hits += is_hit;
	if (version >= expected || (session->kind != FRESH && !is_hit))
		return;
	session->stale++;
	if (session->nages < MAX_AGES)
		session->ages[session->nages++] = now() - since;
}

static void *
run_session(void *arg)
{
	Session    *session = arg;

	while (!atomic_load(&stop))
	{
		/* A few rows are hot: the smaller of two draws. */
		int			a = (int) (nrand48(session->random) % KEYS);
		int			b = (int) (nrand48(session->random) % KEYS);
		int			key = a < b ? a : b;

		delete_what_is_due(session, false);
		if (erand48(session->random) < write_share && session->kind == FRESH)
			write_row(session, key);
		else
			read_row(session, key);
	}
	delete_what_is_due(session, true);
	return NULL;
}

/* ----- the run ----- */

static int
count_stuck_pages(Session *session)
{
	int			stuck = 0;

	for (int tag = 0; tag < KEYS / LIST_ROWS; tag++)
	{
		char	   *page = query_page(session, tag, NULL, &(char *){NULL});
		redisReply *nonce = ask(session, "GET gen:%d", tag);

		if (nonce->type == REDIS_REPLY_STRING)
		{
			redisReply *reply = ask(session, "GET list:%d:%s", tag, nonce->str);

			if (reply->type == REDIS_REPLY_STRING && strcmp(reply->str, page) != 0)
				stuck++;
			freeReplyObject(reply);
		}
		freeReplyObject(nonce);
		free(page);
	}
	return stuck;
}

static int
count_stuck(Session *session)
{
	int			stuck = 0;
	char	   *delivered = query(session, "SELECT uncache.wait('60 s')", NULL, NULL, NULL);

	if (delivered == NULL || strcmp(delivered, "t") != 0)
		die("uncache.wait", "the backlog was not delivered");
	free(delivered);
	if (strategy->lists)
		return count_stuck_pages(session);
	for (int key = 0; key < KEYS; key++)
	{
		char		id[12];
		redisReply *reply = ask(session, "GET stale:%d", key);
		char	   *version;

		snprintf(id, sizeof(id), "%d", key);
		version = query(session, "SELECT version FROM stale WHERE id = $1", id, NULL, NULL);
		if (reply->type == REDIS_REPLY_STRING && strcmp(reply->str, version) != 0)
			stuck++;
		free(version);
		freeReplyObject(reply);
	}
	return stuck;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
report(Session *sessions, int stuck)
{
	Session		sum = {.ages = malloc(sizeof(double) * MAX_AGES * (size_t) nsessions)};

	for (int i = 0; i < nsessions; i++)
	{
		sum.reads += sessions[i].reads;
		sum.stale += sessions[i].stale;
		sum.hits += sessions[i].hits;
		sum.fills += sessions[i].fills;
		sum.refused += sessions[i].refused;
		sum.writes += sessions[i].writes;
		sum.failed += sessions[i].failed;
		memcpy(sum.ages + sum.nages, sessions[i].ages, sizeof(double) * (size_t) sessions[i].nages);
		sum.nages += sessions[i].nages;
	}
	qsort(sum.ages, (size_t) sum.nages, sizeof(double), compare_doubles);
#define AGE(share) (sum.nages ? sum.ages[(int) ((sum.nages - 1) * (share))] * 1000 : 0)
	printf("%s,%d,%llu,%llu,%llu,%.4f,%d,%.1f,%.1f,%.1f,%.1f,%llu,%llu\n",
		   strategy->name, nsessions, (unsigned long long) sum.reads,
		   (unsigned long long) sum.writes, (unsigned long long) sum.stale,
		   sum.reads ? 100.0 * (double) sum.stale / (double) sum.reads : 0, stuck,
		   AGE(0.5), AGE(0.99), AGE(1.0),
		   sum.reads ? 100.0 * (double) sum.hits / (double) sum.reads : 0,
		   (unsigned long long) sum.refused, (unsigned long long) sum.failed);
}

static void
prepare(Session *session)
{
	char		setting[64];
	char	   *ignored;

	snprintf(setting, sizeof(setting), "SELECT set_config('uncache.consistency', '%s', false)",
			 strategy->consistency);
	ignored = query(session, setting, NULL, NULL, NULL);
	free(ignored);
	/* Where the application deletes, the rules are silent. */
	ignored = query(session, strategy->order == DELETE_NOT ?
					"SELECT set_config('uncache.enabled', 'on', false)" :
					"SELECT set_config('uncache.enabled', 'off', false)", NULL, NULL, NULL);
	free(ignored);
	/* Waiting for Redis on a busy machine is no reason to give up early. */
	ignored = query(session, "SELECT set_config('uncache.wait_timeout', '5s', false)",
					NULL, NULL, NULL);
	free(ignored);
}

int
main(int argc, char **argv)
{
	Session    *sessions;
	int			number;

	if (argc == 2 && strcmp(argv[1], "--header") == 0)
	{
		puts("strategy,sessions,reads,writes,stale,stale_percent,stuck,"
			 "age_p50_ms,age_p99_ms,age_max_ms,hit_percent,refused,failed_writes");
		return 0;
	}
	if (argc != 7)
		die("usage", "staleness STRATEGY(0..9) SESSIONS SECONDS CONNINFO STANDBY REDIS_SOCKET");
	number = atoi(argv[1]);
	if (number < 0 || number >= (int) (sizeof(strategies) / sizeof(strategies[0])))
		die("usage", "no such strategy");
	strategy = &strategies[number];
	nsessions = atoi(argv[2]);
	seconds = atof(argv[3]);
	conninfo = argv[4];
	standby = argv[5];
	socket_path = argv[6];

	sessions = calloc((size_t) nsessions, sizeof(Session));
	for (int i = 0; i < nsessions; i++)
	{
		sessions[i].random[0] = (unsigned short) (i + 1);
		sessions[i].random[1] = (unsigned short) number;
		sessions[i].ages = malloc(sizeof(double) * MAX_AGES);
		sessions[i].kind = strategy->lists ? (Kind) (i % 3) : FRESH;
		connect_session(&sessions[i]);
		prepare(&sessions[i]);
	}
	for (int key = 0; key < KEYS; key++)
		atomic_store(&committed_at[key], now());
	for (int i = 0; i < nsessions; i++)
		pthread_create(&sessions[i].thread, NULL, run_session, &sessions[i]);
	usleep((useconds_t) (seconds * 1e6));
	atomic_store(&stop, true);
	for (int i = 0; i < nsessions; i++)
		pthread_join(sessions[i].thread, NULL);

	report(sessions, count_stuck(&sessions[0]));
	return 0;
}
