/*
 * node_ping.c
 *	  Pings: whether a node is there, and whether it answers in time.
 *
 * A ping about once a second (with its answer that makes less than two wake-ups a
 * second) finds out that Redis hangs while nothing is to be delivered;
 * while nobody waits for a node since it was late, ten a second find out that it
 * answers in time again.
 *
 * What is sent as a ping is chosen by fence.c, which has something to ask anyway.  With
 * it the server is asked for its role.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "topology/node_int.h"

/* Between pings to a node that is late, since commits could wait for it again. */
#define PING_LATE_MS		100

/* A shorter wait than twice this says nothing about Redis. */
#define LATE_LEAST_MS		10


static const char *plain_ping[] = {"PING"};

void
nodeping_init(void)
{
}

static uint32
lateness(const RedisNode *node)
{
	return node_is_single() ? pg_atomic_read_u32(&MyDatabaseState->breaker) : node->slow_after_ms;
}

void
node_ping_set_slow(RedisNode *node, uint32 ms)
{
	if (node_is_single())
		pg_atomic_write_u32(&MyDatabaseState->breaker, ms);
	else
		node->slow_after_ms = ms;
}

void
node_set_ping(RedisNode *node, const char **argv, int argc, RedisAnswer answer)
{
	NodePrivate *own = node->own;

	own->ping_argv = argv ? argv : plain_ping;
	own->ping_argc = argv ? argc : 1;
	own->ping_answer = argv ? answer : NULL;
}

/* How long the last one took decides whether the node is late. */
static void
ping_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = arg;
	NodePrivate *own = node->own;
	uint32		late = lateness(node);

	own->ping_under_way = false;
	if (own->due_answer)
		own->due_answer(NULL, reply);
	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		/* To be refused PING is an answer, too; what concerns all commands has a code of its own. */
		if (own->due_answer == NULL && !redis_reply_is_error(reply, "NOPERM") &&
			!redis_reply_is_error(reply, "ERR"))
			node_note_trouble(node, reply);
	}
	else if (late != 0 &&
			 !TimestampDifferenceExceeds(own->ping_sent_at, clock_now(),
										 Max(late / 2, LATE_LEAST_MS)))
		node_ping_set_slow(node, 0);
}

/*
 * A master that becomes a replica does not close its links.  One that is not read-only goes
 * on taking deletes, and loses them with its data; one that is master again before it has
 * refused anything has the data of another.
 */
static void
role_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = arg;
	NodePrivate *own = node->own;
	const char *role;

	if (reply == NULL)
		return;
	if (redis_reply_count(reply) == 0)
	{
		own->tells_role = false;	/* it is not permitted */
		return;
	}
	role = redis_reply_text(redis_reply_element(reply, 0), NULL);
	if (strcmp(role, "master") != 0 && own->trouble[0] == '\0')
		strlcpy(own->trouble, "Redis has become a replica", sizeof(own->trouble));
}

static void
ask_role(RedisNode *node)
{
	const char *argv[] = {"ROLE"};
	const size_t lens[] = {4};

	if (node->own->tells_role)
		redis_send(node->link, 1, argv, lens, role_answered, node);
}

void
node_ping_if_due(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;
	bool		is_late = lateness(node) != 0;

	if (is_late)
		own->ping_at = Min(own->ping_at, TimestampTzPlusMilliseconds(now, PING_LATE_MS));
	if (own->ping_under_way || now < own->ping_at)
		return;
	own->ping_sent_at = now;
	own->due_answer = own->ping_answer;
	own->ping_at = TimestampTzPlusMilliseconds(now, is_late ? PING_LATE_MS : PING_MS);
	if (redis_send_texts(node->link, own->ping_argc, own->ping_argv, ping_answered, node))
		own->ping_under_way = true;
	if (!is_late)
		ask_role(node);
}

void
node_ping_begin(RedisNode *node, TimestampTz now)
{
	node->own->ping_under_way = false;
	node->own->tells_role = redis_role(node->link)[0] != '\0';
	node->own->ping_at = TimestampTzPlusMilliseconds(now, PING_MS);
}
