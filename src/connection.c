/*
 * connection.c
 *	  The worker's connection to Redis: opening, losing, trying again.
 *
 *		CONNECTING --> CONNECTED --> DOWN --(attempts)--> CONNECTED ...
 *			 \------------------------^
 *		PAUSED: uncache.delivery is off, no connection
 *
 * An attempt that fails is repeated after a pause that doubles up to a second.
 * The log gets one line when Redis goes, one a minute while it is away, and one
 * when it is back; uncache.stat has the last error at any time.
 *
 * A Redis that lets us in and then refuses every command is not back.  So a
 * connection counts for the log, and for the pauses, once it has proven itself: by
 * a command that was carried out, or by having lasted for a second.
 *
 * A ping about once a second (with its answer that makes less than two wake-ups a
 * second) finds out that Redis hangs while nothing is to be delivered;
 * while the breaker is open, ten a second find out that it answers in time again.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "connection.h"
#include "linksettings.h"
#include "sentinel.h"
#include "settings.h"
#include "trouble.h"

#define RETRY_FIRST_MS		50
#define RETRY_LAST_MS		1000
#define SUMMARY_MS			(60 * 1000)
#define PING_MS				1200
#define PING_BREAKER_MS		100

/* A shorter wait than twice this says nothing about Redis. */
#define BREAKER_LEAST_MS	10

/* Redis 6.2: what this program was tested with at the least. */
#define OLDEST_VERSION		60200

#define REDIS_SOCKET		0
#define SENTINEL_SOCKET		1

static DatabaseSlot *slot;
static RedisTarget *target = NULL;
static RedisLink *current = NULL;	/* NULL: none is open */
static bool was_ready = false;	/* the current one */
static bool proven;				/* the current one has been of use */
static TimestampTz ready_at;
static uint64 batches_before;	/* it was ready */
static bool flaps = false;		/* the last one was lost unproven */
static uint64 generation = 0;

static TimestampTz retry_at = 0;
static int	retry_ms = RETRY_FIRST_MS;

static bool is_down = false;	/* the log has been told so */
static TimestampTz down_since;
static TimestampTz summary_at;
static uint64 attempts;			/* since down_since */

/* Of the server of the last connection. */
static char run_id[64] = "";
static char history[64] = "";
static bool new_server = false;

static TimestampTz ping_at = 0;
static bool ping_under_way = false;
static const char *plain_ping[] = {"PING"};
static const char **ping_argv = plain_ping;
static int	ping_argc = 1;
static RedisAnswer ping_answer = NULL;

static char endpoint[128];

RedisLink *
connection_link(void)
{
	return was_ready ? current : NULL;
}

bool
connection_is_new_server(void)
{
	return new_server;
}

uint64
connection_generation(void)
{
	return generation + sentinel_generation();
}

pgsocket
connection_socket(int i)
{
	if (i == SENTINEL_SOCKET)
		return sentinel_socket();
	return current ? redis_socket(current) : PGINVALID_SOCKET;
}

uint32
connection_wanted_events(int i)
{
	if (i == SENTINEL_SOCKET)
		return sentinel_wanted_events();
	return current ? redis_wanted_events(current) : 0;
}

TimestampTz
connection_deadline(void)
{
	TimestampTz deadline = sentinel_deadline();

	if (!setting_delivery)
		return DT_NOEND;
	if (current != NULL)
	{
		deadline = Min(deadline, redis_deadline(current));
		if (was_ready && !ping_under_way)
			deadline = Min(deadline, ping_at);
	}
	else if (sentinel_state() != SENTINEL_ASKING)
		deadline = Min(deadline, retry_at);
	return deadline;
}

static void
set_state(SlotState state)
{
	pg_atomic_write_u32(&slot->state, state);
	/* Who reads the outbox from now on must see what was skipped before. */
	pg_memory_barrier();
}

static void
note_endpoint(void)
{
	if (sentinel_master())
		redisurl_public(sentinel_master(), endpoint, sizeof(endpoint));
	else if (target)
		redisurl_public(target, endpoint, sizeof(endpoint));
	else
		strlcpy(endpoint, "", sizeof(endpoint));
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	strlcpy(slot->endpoint, endpoint, sizeof(slot->endpoint));
	LWLockRelease(slot->lock);
}

void
connection_note_error(const char *format,...)
{
	char		error[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(error, sizeof(error), format, args);
	va_end(args);
	shmem_note_error(slot, error);
	ereport(LOG, (errmsg("%s", error)));
}

/*
 * --------------------------------------------------------------------------
 * Pings
 * --------------------------------------------------------------------------
 */

void
connection_set_ping(const char **argv, int argc, RedisAnswer answer)
{
	ping_argv = argv ? argv : plain_ping;
	ping_argc = argv ? argc : 1;
	ping_answer = argv ? answer : NULL;
}

/* How long the last one took decides about the breaker. */
static void
ping_answered(void *arg, const RedisReply *reply)
{
	TimestampTz sent_at = *(TimestampTz *) arg;
	uint32		breaker = pg_atomic_read_u32(&slot->breaker);

	ping_under_way = false;
	if (ping_answer)
		ping_answer(NULL, reply);
	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		/* To be refused PING is an answer, too, for a user with few rights. */
		if (ping_answer == NULL && !redis_reply_is_error(reply, "NOPERM"))
			trouble_note(reply);
	}
	else if (breaker != 0 &&
			 !TimestampDifferenceExceeds(sent_at, GetCurrentTimestamp(),
										 Max(breaker / 2, BREAKER_LEAST_MS)))
		pg_atomic_write_u32(&slot->breaker, 0);
}

static void
ping_if_due(TimestampTz now)
{
	static TimestampTz sent_at;
	size_t		lens[8];
	bool		breaker_open = pg_atomic_read_u32(&slot->breaker) != 0;

	if (breaker_open)
		ping_at = Min(ping_at, TimestampTzPlusMilliseconds(now, PING_BREAKER_MS));
	if (ping_under_way || now < ping_at)
		return;
	sent_at = now;
	ping_at = TimestampTzPlusMilliseconds(now, breaker_open ? PING_BREAKER_MS : PING_MS);
	for (int i = 0; i < ping_argc; i++)
		lens[i] = strlen(ping_argv[i]);
	if (redis_send(current, ping_argc, ping_argv, lens, ping_answered, &sent_at))
		ping_under_way = true;
}

/*
 * --------------------------------------------------------------------------
 * Losing
 * --------------------------------------------------------------------------
 */

static void
log_down(const char *error, TimestampTz now)
{
	attempts++;
	if (!is_down)
	{
		is_down = true;
		down_since = now;
		attempts = 1;
		ereport(LOG,
				(errmsg("Redis at %s can't be used: %s", endpoint, error),
				 errdetail("The outbox keeps what is to be deleted until Redis is back.")));
	}
	else if (now >= summary_at)
		ereport(LOG,
				(errmsg("Redis at %s can't be used for %ld s and " UINT64_FORMAT " attempts: %s",
						endpoint, (long) ((now - down_since) / USECS_PER_SEC), attempts, error)));
	else
		return;
	summary_at = TimestampTzPlusMilliseconds(now, SUMMARY_MS);
}

/* Close the link, if any; its commands are answered with NULL. */
static void
close_link(void)
{
	RedisLink  *closing = current;

	current = NULL;
	was_ready = false;
	generation++;
	if (closing)
		redis_close(closing);
	sentinel_forget();
	trouble_clear();
}

static void
lose_link(const char *error)
{
	TimestampTz now = GetCurrentTimestamp();
	char		copy[256];

	strlcpy(copy, error, sizeof(copy));
	set_state(SLOT_DOWN);
	shmem_note_error(slot, copy);
	log_down(copy, now);
	flaps = was_ready && !proven;
	close_link();

	/* Not all workers of all servers at the same instant. */
	retry_at = TimestampTzPlusMilliseconds(now,
										   retry_ms / 2 + pg_prng_uint64_range(&pg_global_prng_state, 0, retry_ms / 2));
	retry_ms = Min(retry_ms * 2, RETRY_LAST_MS);
}

/*
 * --------------------------------------------------------------------------
 * Opening
 * --------------------------------------------------------------------------
 */

void
connection_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
	linksettings_note();
}

/* Returns whether it is known which server to connect to. */
static bool
find_server(void)
{
	SentinelState state = sentinel_state();
	bool		moved;

	if (state == SENTINEL_IDLE)
	{
		sentinel_ask();
		state = sentinel_turn(0, &moved);
	}
	if (state == SENTINEL_FAILED)
		lose_link(sentinel_error());
	return state == SENTINEL_UNUSED || state == SENTINEL_KNOWN;
}

/* Returns whether there is a link now. */
static bool
open_link(void)
{
	RedisOptions options = linksettings_options();
	const RedisTarget *server = sentinel_master() ? sentinel_master() : target;

	generation++;
	note_endpoint();
	current = server ? redis_open(server, 0, &options) : NULL;
	if (current == NULL)
		lose_link(server ? "out of memory" : "uncache.redis_url can't be understood");
	return current != NULL;
}

static void
note_ready(void)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *id = redis_run_id(current);

	/* A server that does not tell its id is taken for a new one: that is safe. */
	new_server = id[0] == '\0' || strcmp(id, run_id) != 0 ||
		strcmp(redis_history(current), history) != 0;
	strlcpy(run_id, id, sizeof(run_id));
	strlcpy(history, redis_history(current), sizeof(history));

	if (redis_version(current) != 0 && redis_version(current) < OLDEST_VERSION)
		ereport(LOG,
				(errmsg("Redis at %s is older than version 6.2, the oldest that pg_uncache supports",
						endpoint)));
	if (generation > 1)
		pg_atomic_fetch_add_u64(&slot->stats.reconnects, 1);

	was_ready = true;
	proven = false;
	ready_at = now;
	batches_before = pg_atomic_read_u64(&slot->stats.batches);
	ping_under_way = false;
	ping_at = TimestampTzPlusMilliseconds(now, PING_MS);
	/* Nobody shall wait for one that is likely to be lost at once. */
	pg_atomic_write_u32(&slot->breaker, flaps ? Max(setting_wait_timeout, 1) : 0);
	set_state(SLOT_CONNECTED);
}

/* Look whether the connection has proven itself. */
static void
prove_link(TimestampTz now)
{
	if (pg_atomic_read_u64(&slot->stats.batches) == batches_before &&
		!TimestampDifferenceExceeds(ready_at, now, PING_MS))
		return;

	if (is_down)
		ereport(LOG,
				(errmsg("connected to Redis at %s again after %ld s",
						endpoint, (long) ((now - down_since) / USECS_PER_SEC))));
	if (flaps)
		pg_atomic_write_u32(&slot->breaker, 0);
	proven = true;
	flaps = false;
	is_down = false;
	retry_ms = RETRY_FIRST_MS;
}

/*
 * --------------------------------------------------------------------------
 * Turning
 * --------------------------------------------------------------------------
 */

static ConnectionEvent
turn_link(uint32 events)
{
	bool		before = was_ready;
	RedisLinkState state = redis_turn(current, events);
	const char *trouble = trouble_text();
	TimestampTz now;

	if (state == REDIS_FAILED || trouble)
	{
		lose_link(trouble ? trouble : redis_error(current));
		return before ? CONNECTION_LOST : CONNECTION_SAME;
	}
	if (state != REDIS_READY)
		return CONNECTION_SAME;
	if (!before)
	{
		note_ready();
		return CONNECTION_MADE;
	}
	now = GetCurrentTimestamp();
	if (!proven)
		prove_link(now);
	ping_if_due(now);
	return CONNECTION_SAME;
}

/* Sentinel has replaced the master. */
static ConnectionEvent
leave_server(void)
{
	bool		before = was_ready;

	lose_link("Sentinel names another server as master");
	return before ? CONNECTION_LOST : CONNECTION_SAME;
}

static void
take_address(void)
{
	const char *problem;

	target = redisurl_parse(setting_redis_url, &problem);
	sentinel_use(target);
	note_endpoint();
}

ConnectionEvent
connection_turn(const uint32 *events)
{
	bool		moved;

	if (!setting_delivery)
	{
		bool		before = was_ready;

		set_state(SLOT_PAUSED);
		close_link();
		sentinel_use(target);	/* which closes their link, too */
		is_down = false;
		return before ? CONNECTION_LOST : CONNECTION_SAME;
	}
	if (pg_atomic_read_u32(&slot->state) == SLOT_PAUSED)
		set_state(SLOT_CONNECTING);

	if (target == NULL)
		take_address();
	sentinel_turn(events[SENTINEL_SOCKET], &moved);
	if (moved && current != NULL)
		return leave_server();
	if (current == NULL &&
		(GetCurrentTimestamp() < retry_at || !find_server() || !open_link()))
		return CONNECTION_SAME;
	return turn_link(events[REDIS_SOCKET]);
}

void
connection_reset(void)
{
	sentinel_use(NULL);
	if (target)
		redisurl_free(target);
	target = NULL;
	retry_at = 0;
	retry_ms = RETRY_FIRST_MS;
	run_id[0] = '\0';
	linksettings_note();
	set_state(setting_delivery ? SLOT_CONNECTING : SLOT_PAUSED);
	close_link();
	is_down = false;
}
