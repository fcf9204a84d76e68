/*
 * cluster_migration.c
 *	  Whether slots, and keys with them, move to or from a node of a Redis Cluster.
 *
 * Model: the map tells which master serves a hash slot, but while the keys of a slot
 * move the map stays as it was; only the two masters know.  A node's answer to CLUSTER
 * NODES tells which of its own slots move:
 *
 *		id address myself,master - ping pong epoch state 0-99 [7->-id] [8-<-id]
 *
 * A slot in brackets is on the move.  Without one, the text from the epoch on stands
 * for the slots that the node has.  A node that slots move to may have none yet, and
 * then the map does not name it.
 *
 * Failure: an answer that can't be read, and an ACL without +cluster|nodes, count
 * as slots on the move.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "topology/cluster_map.h"
#include "topology/target.h"

/* Words of a line before these. */
#define BEFORE_ADDRESS	1
#define BEFORE_FLAGS	2
#define BEFORE_EPOCH	6

/* A node's id is so many hexadecimal digits. */
#define NODE_ID_BYTES	40

/* The word that is "words" words further on, or NULL; no line has two blanks in a row. */
static const char *
skip_words(const char *at, const char *end, int words)
{
	while (at != NULL && words-- > 0)
	{
		at = memchr(at, ' ', end - at);
		if (at != NULL)
			at++;
	}
	return at;
}

static const char *
end_of_line(const char *line, const char *behind)
{
	const char *end = memchr(line, '\n', behind - line);

	return end ? end : behind;
}

static bool
is_own_line(const char *line, const char *end)
{
	const char *flags = skip_words(line, end, BEFORE_FLAGS);

	return flags != NULL && end - flags > 6 && strncmp(flags, "myself", 6) == 0;
}

/* Take the node of a line into the target; its address is "host:port@bus". */
static void
take_in(Target *target, const char *line, const char *end)
{
	const char *address = skip_words(line, end, BEFORE_ADDRESS);
	const char *at = address ? memchr(address, '@', end - address) : NULL;
	char		text[CLUSTER_MAX_HOST + 8];
	char	   *colon;

	if (at == NULL || at - address >= sizeof(text))
		return;
	memcpy(text, address, at - address);
	text[at - address] = '\0';
	colon = strrchr(text, ':');
	if (colon == NULL || colon == text)
		return;
	*colon = '\0';
	target_take_in(target, text, atoi(colon + 1));
}

/* Take the node with this id into the target. */
static void
take_in_id(Target *target, const char *id, const char *text, const char *behind)
{
	Assert(id >= text && behind - id >= NODE_ID_BYTES);
	for (const char *line = text; line < behind; line = end_of_line(line, behind) + 1)
	{
		if (behind - line > NODE_ID_BYTES && memcmp(line, id, NODE_ID_BYTES) == 0)
			take_in(target, line, end_of_line(line, behind));
	}
}

uint32
cluster_migration_read(RedisNode *node, const RedisReply *reply)
{
	size_t		len;
	const char *text = redis_reply_text(reply, &len);
	const char *behind = text + len;
	const char *line = text;
	const char *end;
	const char *epoch;
	bool		moving = false;

	Assert(node->in_cluster);
	while (line < behind && !is_own_line(line, end_of_line(line, behind)))
		line = end_of_line(line, behind) + 1;
	if (redis_reply_type(reply) == REDIS_ERROR || line >= behind)
		return SLOTS_MOVE;
	end = end_of_line(line, behind);
	epoch = skip_words(line, end, BEFORE_EPOCH);
	if (epoch == NULL)
		return SLOTS_MOVE;

	for (const char *at = epoch; at != NULL && at < end; at = skip_words(at, end, 1))
	{
		const char *arrow = *at == '[' ? memchr(at, '>', end - at) : NULL;

		moving |= *at == '[';
		if (arrow != NULL && end - arrow > 2 + NODE_ID_BYTES)
			take_in_id(node->target, arrow + 2, text, behind);
	}
	return moving ? SLOTS_MOVE : hash_bytes((const unsigned char *) epoch, end - epoch) | 1;
}

bool
cluster_migration_ask(RedisNode *node, RedisAnswer answer)
{
	const char *argv[] = {"CLUSTER", "NODES"};

	Assert(node->in_cluster && node->link != NULL);
	return redis_send_texts(node->link, lengthof(argv), argv, answer, NULL);
}
