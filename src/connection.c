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
 * A ping about once a second (with its answer that makes less than two wake-ups a
 * second) finds out that Redis hangs while nothing is to be delivered;
 * while the breaker is open, ten a second find out that it answers in time again.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "connection.h"
#include "deliver.h"
#include "settings.h"

#define RETRY_FIRST_MS		50
#define RETRY_LAST_MS		1000
#define SUMMARY_MS			(60 * 1000)
#define PING_MS				1200
#define PING_BREAKER_MS		100

/* Redis 6.2: what this program was tested with at the least. */
#define OLDEST_VERSION		60200

static DatabaseSlot *slot;
static RedisTarget *target = NULL;
static RedisLink *current = NULL;	/* NULL: none is open */
static bool was_ready = false;	/* the current one */
static uint64 generation = 0;

static TimestampTz retry_at = 0;
static int	retry_ms = RETRY_FIRST_MS;

static bool is_down = false;	/* the log has been told so */
static TimestampTz down_since;
static TimestampTz summary_at;
static uint64 attempts;			/* since down_since */

static char run_id[64] = "";	/* of the server of the last connection */
static bool new_server = false;

static TimestampTz ping_at = 0;
static bool ping_under_way = false;
static const char *plain_ping[] = {"PING"};
static const char **ping_argv = plain_ping;
static int	ping_argc = 1;
static RedisAnswer ping_answer = NULL;

static char endpoint[128];

void
connection_init(DatabaseSlot *my_slot)
{
	slot = my_slot;
}

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
	return generation;
}

pgsocket
connection_socket(void)
{
	return current ? redis_socket(current) : PGINVALID_SOCKET;
}

uint32
connection_wanted_events(void)
{
	return current ? redis_wanted_events(current) : 0;
}

TimestampTz
connection_deadline(void)
{
	if (!setting_delivery)
		return DT_NOEND;
	if (current == NULL)
		return retry_at;
	return Min(redis_deadline(current), was_ready && !ping_under_way ? ping_at : DT_NOEND);
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
	if (target)
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
		if (ping_answer == NULL)
			deliver_set_trouble(reply);
	}
	else if (breaker != 0 &&
			 !TimestampDifferenceExceeds(sent_at, GetCurrentTimestamp(), breaker / 2))
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
 * Opening
 * --------------------------------------------------------------------------
 */

static void
open_link(void)
{
	const RedisOptions options = {
		.connect_timeout = setting_connect_timeout,
		.command_timeout = setting_command_timeout,
		.password_file = setting_redis_password_file,
		.client_name = "pg_uncache",
	};
	const char *problem;

	generation++;
	if (target == NULL)
	{
		target = redisurl_parse(setting_redis_url, &problem);
		note_endpoint();
	}
	current = target ? redis_open(target, 0, &options) : NULL;
}

static void
note_ready(void)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *id = redis_run_id(current);

	/* A server that does not tell its id is taken for a new one: that is safe. */
	new_server = id[0] == '\0' || strcmp(id, run_id) != 0;
	strlcpy(run_id, id, sizeof(run_id));

	if (is_down)
		ereport(LOG,
				(errmsg("connected to Redis at %s again after %ld s",
						endpoint, (long) ((now - down_since) / USECS_PER_SEC))));
	if (redis_version(current) != 0 && redis_version(current) < OLDEST_VERSION)
		ereport(LOG,
				(errmsg("Redis at %s is older than version 6.2, the oldest that pg_uncache supports",
						endpoint)));
	if (generation > 1)
		pg_atomic_fetch_add_u64(&slot->stats.reconnects, 1);

	is_down = false;
	was_ready = true;
	retry_ms = RETRY_FIRST_MS;
	ping_under_way = false;
	ping_at = TimestampTzPlusMilliseconds(now, PING_MS);
	pg_atomic_write_u32(&slot->breaker, 0);
	set_state(SLOT_CONNECTED);
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
	deliver_clear_trouble();
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
	close_link();

	/* Not all workers of all servers at the same instant. */
	retry_at = TimestampTzPlusMilliseconds(now,
										   retry_ms / 2 + pg_prng_uint64_range(&pg_global_prng_state, 0, retry_ms / 2));
	retry_ms = Min(retry_ms * 2, RETRY_LAST_MS);
}

static ConnectionEvent
turn_link(uint32 events)
{
	bool		before = was_ready;
	RedisLinkState state = redis_turn(current, events);
	const char *trouble = deliver_trouble();

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
	ping_if_due(GetCurrentTimestamp());
	return CONNECTION_SAME;
}

ConnectionEvent
connection_turn(uint32 events)
{
	if (!setting_delivery)
	{
		bool		before = was_ready;

		set_state(SLOT_PAUSED);
		close_link();
		is_down = false;
		return before ? CONNECTION_LOST : CONNECTION_SAME;
	}
	if (pg_atomic_read_u32(&slot->state) == SLOT_PAUSED)
		set_state(SLOT_CONNECTING);

	if (current == NULL)
	{
		if (GetCurrentTimestamp() < retry_at)
			return CONNECTION_SAME;
		open_link();
		if (current == NULL)
		{
			lose_link(target ? "out of memory" : "uncache.redis_url can't be understood");
			return CONNECTION_SAME;
		}
	}
	return turn_link(events);
}

void
connection_reset(void)
{
	if (target)
		redisurl_free(target);
	target = NULL;
	retry_at = 0;
	retry_ms = RETRY_FIRST_MS;
	run_id[0] = '\0';
	set_state(setting_delivery ? SLOT_CONNECTING : SLOT_PAUSED);
	close_link();
	is_down = false;
}
