/*
 * cluster_fuzz.c
 *	  Any answer of a hostile server as an answer to CLUSTER SLOTS, and as a
 *	  redirection; and any bytes as a key.
 *
 * The input describes the answer's tree instead of its bytes on the wire (those
 * are redis_fuzz.c's), so that a change of a byte gives another answer rather
 * than none.
 */
#include "postgres.h"

#include <hiredis/hiredis.h>

#include "topology/cluster_map.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MAX_DEPTH		7
#define MAX_REPLIES		4096

typedef struct Input
{
	const uint8 *data;
	size_t		size;
	int			replies;
} Input;

static int
next_byte(Input *input)
{
	if (input->size == 0)
		return 0;
	input->size--;
	return *input->data++;
}

static int64
next_integer(Input *input, int bytes)
{
	uint64		number = 0;

	while (bytes-- > 0)
		number = number << 8 | next_byte(input);
	return (int64) number;
}

static void
read_text(Input *input, redisReply *reply, int type)
{
	size_t		wanted = 2 * (size_t) next_byte(input);

	reply->type = type;
	reply->len = Min(wanted, input->size);
	reply->str = malloc(reply->len + 1);
	memcpy(reply->str, input->data, reply->len);
	reply->str[reply->len] = '\0';
	input->data += reply->len;
	input->size -= reply->len;
}

static redisReply *read_reply(Input *input, int depth);

static void
read_array(Input *input, redisReply *reply, int depth)
{
	int			count = depth < MAX_DEPTH ? next_byte(input) : 0;

	reply->type = REDIS_REPLY_ARRAY;
	reply->element = calloc(Max(count, 1), sizeof(redisReply *));
	for (int i = 0; i < count && input->replies < MAX_REPLIES; i++)
		reply->element[reply->elements++] = read_reply(input, depth + 1);
}

static redisReply *
read_reply(Input *input, int depth)
{
	redisReply *reply = calloc(1, sizeof(redisReply));

	input->replies++;
	switch (next_byte(input) % 8)
	{
		case 0:
			reply->type = REDIS_REPLY_NIL;
			break;
		case 1:
			reply->type = REDIS_REPLY_INTEGER;
			reply->integer = next_integer(input, 2);
			break;
		case 2:
			reply->type = REDIS_REPLY_INTEGER;
			reply->integer = next_integer(input, 8);
			break;
		case 3:
			read_text(input, reply, REDIS_REPLY_STRING);
			break;
		case 4:
			read_text(input, reply, REDIS_REPLY_ERROR);
			break;
		case 5:
			read_text(input, reply, REDIS_REPLY_STATUS);
			break;
		default:
			read_array(input, reply, depth);
			break;
	}
	return reply;
}

static void
check_host(const char *host)
{
	if (strlen(host) > CLUSTER_MAX_HOST)
		abort();
	for (const char *p = host; *p; p++)
	{
		if ((unsigned char) *p <= ' ' || (unsigned char) *p >= 0x7f)
			abort();
	}
}

/* What was taken must keep its promises. */
static void
check_map(const ClusterMap *map)
{
	int			nodes = cluster_map_nodes(map);
	bool	   *serves = calloc(nodes, sizeof(bool));

	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
	{
		int			node = cluster_map_node(map, slot);

		if (node < -1 || node >= nodes)
			abort();
		if (node >= 0)
			serves[node] = true;
	}
	for (int i = 0; i < nodes; i++)
	{
		if (!serves[i] || cluster_map_port(map, i) < 1 || cluster_map_port(map, i) > 65535 ||
			cluster_map_host(map, i)[0] == '\0')
			abort();
		check_host(cluster_map_host(map, i));
	}
	if (nodes < 1 || !cluster_map_equal(map, map))
		abort();
	free(serves);
}

static void
check_redirect(const RedisReply *reply)
{
	char		host[CLUSTER_MAX_HOST + 1];
	char		small[4];
	uint16		slot;
	int			port;

	if (cluster_map_redirect(reply, &slot, host, sizeof(host), &port) != CLUSTER_NO_REDIRECT)
	{
		if (slot >= CLUSTER_SLOTS || port < 1 || port > 65535)
			abort();
		check_host(host);
	}
	cluster_map_redirect(reply, &slot, small, sizeof(small), &port);
}

/* What a key and its tag say must agree. */
static void
check_slot(const uint8 *data, size_t size)
{
	uint16		slot = cluster_map_slot((const char *) data, size);
	char	   *tagged = malloc(size + 2);

	if (slot >= CLUSTER_SLOTS)
		abort();
	tagged[0] = '{';
	memcpy(tagged + 1, data, size);
	tagged[size + 1] = '}';
	if (size > 0 && memchr(data, '{', size) == NULL && memchr(data, '}', size) == NULL &&
		cluster_map_slot(tagged, size + 2) != slot)
		abort();
	free(tagged);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	Input		input = {data, size, 0};
	redisReply *tree = read_reply(&input, 1);
	const RedisReply *reply = (const RedisReply *) tree;
	ClusterMap *map = cluster_map_read(reply, "asked");

	if (map != NULL)
		check_map(map);
	cluster_map_free(map);
	check_redirect(reply);
	cluster_map_epoch_read(reply);
	check_slot(data, size);
	freeReplyObject(tree);
	return 0;
}
