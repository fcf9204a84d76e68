/*
 * cluster_map.c
 *	  What a client of Redis Cluster must know: hash slots, the map of the masters
 *	  that serve them, and redirections.
 *
 * Model: a map is read from one answer of one node and never changed; cluster_watch.c
 * reads another one and compares.  It asks with CLUSTER SLOTS, which Redis 6.2 knows,
 * and not with CLUSTER SHARDS (7.0), which has nothing more that is needed here.
 *
 * Failure: an answer is taken whole or not at all.  If one thing in it is wrong (a slot
 * twice, a port out of range) the rest is not believed either; the map of before, or
 * another node's, is better than half of this one.  Slots that no master serves are not
 * wrong: the cluster is being made, or lacks a master.
 *
 * Limits: MAX_NODES masters; replicas are not looked at.
 */
#include "postgres.h"

#include "topology/cluster_map.h"

/*
 * Redis recommends no more nodes than that.  It also bounds the work that a
 * hostile answer can cause, since number_node() compares with one node after the other.
 */
#define MAX_NODES	1000

typedef struct ClusterNode
{
	char		host[CLUSTER_MAX_HOST + 1];
	int			port;
} ClusterNode;

struct ClusterMap
{
	int			nnodes;
	int			room;			/* of nodes[] */
	ClusterNode *nodes;
	int16		node_of[CLUSTER_SLOTS]; /* -1: none */
};

/* ------------------------------------------------------------------------
 * Slots
 * ------------------------------------------------------------------------
 */

/* CRC-16 with the polynomial 0x1021, from 0, highest bit first ("XMODEM"). */
static uint16
crc16(const char *bytes, size_t len)
{
	/* The remainder of each half byte. */
	static const uint16 remainders[16] = {
		0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
		0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
	};
	uint16		crc = 0;

	for (size_t i = 0; i < len; i++)
	{
		uint8		byte = (uint8) bytes[i];

		crc = (uint16) (crc << 4) ^ remainders[(crc >> 12) ^ (byte >> 4)];
		crc = (uint16) (crc << 4) ^ remainders[(crc >> 12) ^ (byte & 0x0f)];
	}
	return crc;
}

uint16
cluster_map_slot(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len);

	if (open != NULL)
	{
		const char *tag = open + 1;
		const char *close = memchr(tag, '}', len - (tag - key));

		if (close != NULL && close > tag)
			return crc16(tag, close - tag) % CLUSTER_SLOTS;
	}
	return crc16(key, len) % CLUSTER_SLOTS;
}

/* ------------------------------------------------------------------------
 * Hosts and numbers in answers
 * ------------------------------------------------------------------------
 */

/* Copies a name or an address, if it is one that fits into "size" bytes. */
static bool
take_host(const char *text, size_t len, char *to, size_t size)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%";

	if (len > CLUSTER_MAX_HOST || len >= size)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '\0' || strchr(allowed, text[i]) == NULL)
			return false;
	}
	memcpy(to, text, len);
	to[len] = '\0';
	return true;
}

/* Redis writes "?", or nothing, for a node whose address it does not know. */
static bool
is_unknown_host(const char *text, size_t len)
{
	return len == 0 || (len == 1 && text[0] == '?');
}

/* A decimal number up to "max" and nothing else; -1 otherwise. */
static int
take_number(const char *text, size_t len, int max)
{
	int			number = 0;

	if (len == 0 || len > 5)
		return -1;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return -1;
		number = number * 10 + (text[i] - '0');
	}
	return number <= max ? number : -1;
}

/* An integer from "min" to "max"; -1 otherwise, and for an answer of another type. */
static int
integer_between(const RedisReply *reply, int min, int max)
{
	int64		number = redis_reply_integer(reply);

	if (redis_reply_type(reply) != REDIS_INTEGER || number < min || number > max)
		return -1;
	return (int) number;
}

/* ------------------------------------------------------------------------
 * The map
 * ------------------------------------------------------------------------
 */

/* A node's host and port, as an element of CLUSTER SLOTS has them. */
static bool
read_node(const RedisReply *reply, const char *asked_host, ClusterNode *node)
{
	const RedisReply *host;
	const char *text;
	size_t		len;

	if (redis_reply_count(reply) < 2)
		return false;
	host = redis_reply_element(reply, 0);
	if (redis_reply_type(host) != REDIS_STRING && redis_reply_type(host) != REDIS_NIL)
		return false;
	text = redis_reply_text(host, &len);
	if (is_unknown_host(text, len))
	{
		text = asked_host;
		len = strlen(asked_host);
	}
	node->port = integer_between(redis_reply_element(reply, 1), 1, 65535);
	return node->port > 0 && len > 0 &&
		take_host(text, len, node->host, sizeof(node->host));
}

static bool
nodes_equal(const ClusterNode *a, const ClusterNode *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* The number of a node, which may be new; -1: no room. */
static int
number_node(ClusterMap *map, const ClusterNode *node)
{
	for (int i = 0; i < map->nnodes; i++)
	{
		if (nodes_equal(&map->nodes[i], node))
			return i;
	}
	if (map->nnodes == MAX_NODES)
		return -1;
	if (map->nnodes == map->room)
	{
		int			room = Max(2 * map->room, 8);
		ClusterNode *nodes = realloc(map->nodes, room * sizeof(ClusterNode));

		if (nodes == NULL)
			return -1;
		map->nodes = nodes;
		map->room = room;
	}
	Assert(map->nnodes < map->room);
	map->nodes[map->nnodes] = *node;
	return map->nnodes++;
}

/* One range of slots: the first, the last, the master, replicas. */
static bool
read_range(ClusterMap *map, const RedisReply *reply, const char *asked_host)
{
	int			first;
	int			last;
	ClusterNode node;
	int			number;

	if (redis_reply_count(reply) < 3)
		return false;
	first = integer_between(redis_reply_element(reply, 0), 0, CLUSTER_SLOTS - 1);
	last = integer_between(redis_reply_element(reply, 1), 0, CLUSTER_SLOTS - 1);
	if (first < 0 || last < first ||
		!read_node(redis_reply_element(reply, 2), asked_host, &node))
		return false;
	number = number_node(map, &node);
	if (number < 0)
		return false;
	for (int slot = first; slot <= last; slot++)
	{
		if (map->node_of[slot] >= 0)
			return false;
		map->node_of[slot] = (int16) number;
	}
	return true;
}

ClusterMap *
cluster_map_read(const RedisReply *reply, const char *asked_host)
{
	ClusterMap *map = malloc(sizeof(ClusterMap));

	Assert(strlen(asked_host) <= CLUSTER_MAX_HOST);
	if (map == NULL)
		return NULL;
	map->nnodes = 0;
	map->room = 0;
	map->nodes = NULL;
	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
		map->node_of[slot] = -1;

	for (size_t i = 0; i < redis_reply_count(reply); i++)
	{
		if (!read_range(map, redis_reply_element(reply, i), asked_host))
		{
			cluster_map_free(map);
			return NULL;
		}
	}
	Assert(map->nnodes <= MAX_NODES && map->nnodes <= map->room);
	if (map->nnodes == 0)
	{
		cluster_map_free(map);
		return NULL;
	}
	return map;
}

void
cluster_map_free(ClusterMap *map)
{
	if (map == NULL)
		return;
	free(map->nodes);
	free(map);
}

int
cluster_map_nodes(const ClusterMap *map)
{
	return map->nnodes;
}

const char *
cluster_map_host(const ClusterMap *map, int node)
{
	Assert(node >= 0 && node < map->nnodes);
	return map->nodes[node].host;
}

int
cluster_map_port(const ClusterMap *map, int node)
{
	Assert(node >= 0 && node < map->nnodes);
	return map->nodes[node].port;
}

int
cluster_map_node(const ClusterMap *map, uint16 slot)
{
	Assert(slot < CLUSTER_SLOTS);
	Assert(map->node_of[slot] < map->nnodes);
	return map->node_of[slot];
}

bool
cluster_map_equal(const ClusterMap *a, const ClusterMap *b)
{
	int16		same[MAX_NODES];	/* number in b of each node of a; -1: not known */

	Assert(a->nnodes <= MAX_NODES && b->nnodes <= MAX_NODES);
	if (a->nnodes != b->nnodes)
		return false;
	for (int i = 0; i < a->nnodes; i++)
		same[i] = -1;
	for (int slot = 0; slot < CLUSTER_SLOTS; slot++)
	{
		int			in_a = a->node_of[slot];
		int			in_b = b->node_of[slot];

		if ((in_a < 0) != (in_b < 0))
			return false;
		if (in_a < 0)
			continue;
		if (same[in_a] < 0 && nodes_equal(&a->nodes[in_a], &b->nodes[in_b]))
			same[in_a] = in_b;
		if (same[in_a] != in_b)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Redirections
 * ------------------------------------------------------------------------
 */

uint64
cluster_map_epoch_read(const RedisReply *reply)
{
	static const char name[] = "cluster_current_epoch:";
	size_t		len;
	const char *text = redis_reply_text(reply, &len);
	const char *end = text + len;
	uint64		epoch = 0;

	if (redis_reply_type(reply) != REDIS_STRING)
		return 0;
	while (text != NULL && end - text > strlen(name) && strncmp(text, name, strlen(name)) != 0)
	{
		text = memchr(text, '\n', end - text);
		if (text != NULL)
			text++;
	}
	if (text == NULL || end - text <= strlen(name))
		return 0;
	for (text += strlen(name); text < end && *text >= '0' && *text <= '9'; text++)
		epoch = epoch * 10 + (*text - '0');
	return epoch;
}

/*
 * The text is "MOVED 3999 127.0.0.1:6381".  An address of IPv6 has no brackets,
 * so that the last colon is the one before the port.
 */
ClusterRedirect
cluster_map_redirect(const RedisReply *reply, uint16 *slot, char *host, size_t hostlen, int *port)
{
	bool		moved = redis_reply_is_error(reply, "MOVED");
	size_t		len;
	const char *text = redis_reply_text(reply, &len);
	const char *end = text + len;
	const char *where;
	const char *colon;
	int			found_slot;
	int			found_port;

	if (!moved && !redis_reply_is_error(reply, "ASK"))
		return CLUSTER_NO_REDIRECT;

	text += Min(strlen(moved ? "MOVED " : "ASK "), len);
	where = memchr(text, ' ', end - text);
	if (where == NULL)
		return CLUSTER_NO_REDIRECT;
	found_slot = take_number(text, where - text, CLUSTER_SLOTS - 1);
	where++;

	for (colon = end; colon > where && colon[-1] != ':'; colon--)
		;
	if (found_slot < 0 || colon == where)
		return CLUSTER_NO_REDIRECT;
	found_port = take_number(colon, end - colon, 65535);
	len = colon - 1 - where;
	if (is_unknown_host(where, len))
		len = 0;
	if (found_port < 1 || !take_host(where, len, host, hostlen))
		return CLUSTER_NO_REDIRECT;
	*slot = (uint16) found_slot;
	*port = found_port;
	return moved ? CLUSTER_MOVED : CLUSTER_ASK;
}

bool
cluster_map_is_moving(const RedisReply *reply)
{
	return redis_reply_is_error(reply, "MOVED") || redis_reply_is_error(reply, "ASK") ||
		redis_reply_is_error(reply, "TRYAGAIN");
}
