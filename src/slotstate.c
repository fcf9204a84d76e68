/*
 * slotstate.c
 *	  Whether slots, and keys with them, move to or from a node of a Redis Cluster.
 *
 * Model: the map tells which master serves a slot, but while the keys of a slot
 * move the map stays as it was; only the two masters know.  CLUSTER NODES tells of
 * the node that is asked:
 *
 *		id address myself,master - ping pong epoch state 0-99 [7->-id] [8-<-id]
 *
 * A slot in brackets is on its way.  Where nothing is, all from the epoch on stands
 * for the slots that the node has.
 *
 * Failure: an answer that can't be read, and no right to ask (+cluster|nodes), count
 * as slots on the move.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "slotstate.h"

/* Of a line: words before the epoch, and the place of the flags among them. */
#define WORDS_BEFORE_EPOCH	6
#define FLAGS_WORD			2

/* The word so many words further on, or NULL; a line has no two blanks in a row. */
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

static uint32
state_of_line(const char *line, const char *end)
{
	const char *epoch = skip_words(line, end, WORDS_BEFORE_EPOCH);

	if (epoch == NULL || memchr(epoch, '[', end - epoch) != NULL)
		return SLOTS_MOVE;
	return hash_bytes((const unsigned char *) epoch, end - epoch) | 1;
}

uint32
slotstate_read(const RedisReply *reply)
{
	size_t		len;
	const char *line = redis_reply_text(reply, &len);
	const char *behind = line + len;

	if (redis_reply_type(reply) == REDIS_ERROR)
		return SLOTS_MOVE;
	while (line < behind)
	{
		const char *end = memchr(line, '\n', behind - line);
		const char *flags;

		if (end == NULL)
			end = behind;
		flags = skip_words(line, end, FLAGS_WORD);
		if (flags != NULL && end - flags > 6 && strncmp(flags, "myself", 6) == 0)
			return state_of_line(line, end);
		line = end + 1;
	}
	return SLOTS_MOVE;
}

bool
slotstate_ask(RedisNode *node, RedisAnswer answer)
{
	const char *argv[] = {"CLUSTER", "NODES"};
	const size_t lens[] = {7, 5};

	return redis_send(node->link, 2, argv, lens, answer, NULL);
}
