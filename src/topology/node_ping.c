/*
 * node_ping.c
 *	  Pings: whether a node is there, and whether it answers in time.
 *
 * A ping about once a second (with its answer that makes less than two wake-ups a
 * second) finds out that Redis hangs while nothing is to be delivered.  While a node is
 * slow, so that no session waits for it, ten pings a second find out that it answers in
 * time again.
 *
 * fence_library.c chooses what is sent as a ping, since it has something to ask anyway.
 * With each ping the server is asked for its role.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "topology/topology_int.h"

/* Between pings to a slow node: often, since commits wait for it again once it is quick. */
#define PING_SLOW_MS		100

/* An answer within this time is quick, however short the wait was that has timed out. */
#define QUICK_MS			10

static const char *plain_ping[] = {"PING"};

static uint32
slow_after_ms(const RedisNode *node)
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

	Assert((argv == NULL) == (argc == 0));
	own->ping_argv = argv;
	own->ping_argc = argc;
	own->ping_answer = argv ? answer : NULL;
}

/* How long the answer took decides whether the node is still slow. */
static void
ping_answered(void *arg, const RedisReply *reply)
{
	RedisNode  *node = arg;
	NodePrivate *own = node->own;
	uint32		slow = slow_after_ms(node);

	Assert(own->ping_under_way);
	own->ping_under_way = false;
	if (own->due_answer)
		own->due_answer(NULL, reply);
	if (reply == NULL)
		return;
	if (redis_reply_type(reply) == REDIS_ERROR)
	{
		/* A refused PING is an answer, too; trouble with all commands has another code. */
		if (own->due_answer == NULL && !redis_reply_is_error(reply, "NOPERM") &&
			!redis_reply_is_error(reply, "ERR"))
			node_note_trouble(node, reply);
	}
	else if (slow != 0 &&
			 !TimestampDifferenceExceeds(own->ping_sent_at, clock_now(),
										 Max(slow / 2, QUICK_MS)))
		node_ping_set_slow(node, 0);
}

/*
 * A master that becomes a replica does not close its links.  If it is not read-only it goes
 * on taking deletes, and loses them with its data.  If it is a master again before it has
 * refused a command, it has the data of another server.
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
		own->tells_role = false;	/* an ACL forbids ROLE */
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

	Assert(node->link != NULL);
	if (node->own->tells_role)
		redis_send(node->link, 1, argv, lens, role_answered, node);
}

void
node_ping_if_due(RedisNode *node, TimestampTz now)
{
	NodePrivate *own = node->own;
	bool		is_slow = slow_after_ms(node) != 0;
	bool		is_plain = own->ping_argv == NULL;

	Assert(node->link != NULL);
	if (is_slow)
		own->ping_at = Min(own->ping_at, TimestampTzPlusMilliseconds(now, PING_SLOW_MS));
	if (own->ping_under_way || now < own->ping_at)
		return;
	own->ping_sent_at = now;
	own->due_answer = own->ping_answer;
	own->ping_at = TimestampTzPlusMilliseconds(now, is_slow ? PING_SLOW_MS : PING_MS);
	if (redis_send_texts(node->link, is_plain ? lengthof(plain_ping) : own->ping_argc,
						 is_plain ? plain_ping : own->ping_argv, ping_answered, node))
		own->ping_under_way = true;
	if (!is_slow)
		ask_role(node);
}

void
node_ping_begin(RedisNode *node, TimestampTz now)
{
	Assert(node->link != NULL && node->link == node->own->waited.link);
	node->own->ping_under_way = false;
	node->own->tells_role = redis_role(node->link)[0] != '\0';
	node->own->ping_at = TimestampTzPlusMilliseconds(now, PING_MS);
}
