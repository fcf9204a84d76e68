/*
 * redis_reply.c
 *	  Answers of Redis, and what they may be at the most.
 *
 * Limits, against a broken or hostile server: an answer has at most
 * MAX_REPLY_BYTES, MAX_REPLY_ELEMENTS and MAX_REPLY_DEPTH.  hiredis alone would believe
 * any number that the server sends, and allocate memory for it.
 */
#include "postgres.h"

#include "redis/redis_link_int.h"

/* SCAN's and INFO's answers stay far below; all others have a few bytes. */
#define MAX_REPLY_BYTES		(16 * 1024 * 1024)
#define MAX_REPLY_ELEMENTS	(256 * 1024)
#define MAX_REPLY_DEPTH		7	/* also the limit built into hiredis 0.14 */

/* "$", a length, its end: no first line of a long answer is longer. */
#define MAX_HEADER_BYTES	32

#define REPLY(reply)	((const redisReply *) (reply))

RedisReplyType
redis_reply_type(const RedisReply *reply)
{
	switch (REPLY(reply)->type)
	{
		case REDIS_REPLY_STATUS:
			return REDIS_STATUS;
		case REDIS_REPLY_ERROR:
			return REDIS_ERROR;
		case REDIS_REPLY_INTEGER:
			return REDIS_INTEGER;
		case REDIS_REPLY_NIL:
			return REDIS_NIL;
		case REDIS_REPLY_STRING:
			return REDIS_STRING;
		case REDIS_REPLY_ARRAY:
			return REDIS_ARRAY;
		default:
			return REDIS_OTHER;
	}
}

int64
redis_reply_integer(const RedisReply *reply)
{
	return redis_reply_type(reply) == REDIS_INTEGER ? REPLY(reply)->integer : 0;
}

const char *
redis_reply_text(const RedisReply *reply, size_t *len)
{
	RedisReplyType type = redis_reply_type(reply);

	if (type == REDIS_STATUS || type == REDIS_ERROR || type == REDIS_STRING)
	{
		if (len)
			*len = REPLY(reply)->len;
		return REPLY(reply)->str;
	}
	if (len)
		*len = 0;
	return "";
}

size_t
redis_reply_count(const RedisReply *reply)
{
	return redis_reply_type(reply) == REDIS_ARRAY ? REPLY(reply)->elements : 0;
}

const RedisReply *
redis_reply_element(const RedisReply *reply, size_t i)
{
	Assert(i < redis_reply_count(reply));
	return (const RedisReply *) REPLY(reply)->element[i];
}

bool
redis_reply_is_error(const RedisReply *reply, const char *code)
{
	size_t		len = strlen(code);

	return redis_reply_type(reply) == REDIS_ERROR &&
		strncmp(REPLY(reply)->str, code, len) == 0 &&
		(REPLY(reply)->str[len] == ' ' || REPLY(reply)->str[len] == '\0');
}

/* In place of hiredis's own function, which would believe any number. */
static void *
create_limited_array(const redisReadTask *task, ElementCount elements)
{
	RedisLink  *link = task->privdata;
	int			depth = 1;

	for (const redisReadTask *t = task->parent; t != NULL; t = t->parent)
		depth++;

	Assert(link->reply_elements <= MAX_REPLY_ELEMENTS);
	if (depth > MAX_REPLY_DEPTH ||
		(size_t) elements > MAX_REPLY_ELEMENTS - link->reply_elements)
	{
		link->reply_refused = true;
		return NULL;
	}
	link->reply_elements += elements;
	return link->create_array(task, elements);
}

void
redis_reply_set_limits(RedisLink *link)
{
	redisReader *reader = link->context->reader;

	Assert(reader->fn != &link->functions);
	link->functions = *reader->fn;
	link->create_array = link->functions.createArray;
	link->functions.createArray = create_limited_array;
	reader->fn = &link->functions;
	reader->privdata = link;
}

/* Is what has arrived of the next answer within the limits? */
bool
redis_reply_is_within_limits(const RedisLink *link)
{
	const redisReader *reader = link->context->reader;
	size_t		unparsed = reader->len - reader->pos;

	Assert(reader->pos <= reader->len);
	if (link->reply_refused || link->reply_bytes > MAX_REPLY_BYTES)
		return false;

	/*
	 * Only a string, whose length stands in front, may be long: without that, hiredis would
	 * search the whole text for its end at every read.
	 */
	if (unparsed > READ_BYTES)
	{
		const char *text = reader->buf + reader->pos;

		for (int i = 0; i + 1 < MAX_HEADER_BYTES; i++)
		{
			if (text[i] == '\r' && text[i + 1] == '\n')
				return true;
		}
		return false;
	}
	return true;
}
