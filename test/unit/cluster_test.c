/*
 * cluster_test.c
 *	  Slots, the map of a cluster and redirections: from good, odd and hostile
 *	  answers.
 */
#include "postgres.h"

#include <hiredis/hiredis.h>

#include "topology/cluster_map.h"
#include "tap.h"

/* ------------------------------------------------------------------------
 * Slots, as CLUSTER KEYSLOT of Redis 7.0 gives them
 * ------------------------------------------------------------------------
 */
typedef struct KeySlot
{
	const char *key;
	uint16		slot;
} KeySlot;

static const KeySlot key_slots[] = {
	{"", 0}, {"123456789", 12739}, {"a", 15495}, {"foo", 12182}, {"bar", 5061},
	{"user:1", 10778}, {"key:12345", 11223}, {"\303\251t\303\251", 10087},
	/* the tag is what counts */
	{"42", 8000}, {"cart:{42}", 8000}, {"{42}", 8000}, {"{42}:cart", 8000},
	{"}{a}", 15495}, {"{a}{b}", 15495}, {"foo{bar}{zap}", 5061},
	/* the tag begins with a brace itself */
	{"{{42}}", 14265}, {"x{{42}}y", 14265}, {"{42", 14265},
	/* no tag */
	{"{}", 15257}, {"{}a", 10875}, {"{a", 10276}, {"a}", 5921}, {"foo{}{bar}", 8363},
};

static void
check_slots(void)
{
	char		high[300];

	for (int i = 0; i < lengthof(key_slots); i++)
		ok(cluster_map_slot(key_slots[i].key, strlen(key_slots[i].key)) == key_slots[i].slot,
		   "slot of \"%s\"", key_slots[i].key);
	memset(high, 0xff, sizeof(high));
	ok(cluster_map_slot(high, sizeof(high)) == 6874, "slot of a long key of high bytes");
	ok(cluster_map_slot("a\0b\377{", 5) == 2693, "slot of a key with a zero byte");
	ok(cluster_map_slot("{a}", 2) == cluster_map_slot("{a", 2),
	   "nothing behind the key is looked at");
	ok(cluster_map_slot("{a\0}", 4) == cluster_map_slot("a\0", 2),
	   "a zero byte does not end a tag");
}

/* ------------------------------------------------------------------------
 * Answers
 * ------------------------------------------------------------------------
 */

/* The answer that such bytes are, to be freed with freeReplyObject(). */
static RedisReply *
parse(const char *bytes)
{
	redisReader *reader = redisReaderCreate();
	void	   *reply = NULL;

	redisReaderFeed(reader, bytes, strlen(bytes));
	if (redisReaderGetReply(reader, &reply) != REDIS_OK || reply == NULL)
	{
		printf("Bail out! not an answer: %s\n", bytes);
		exit(1);
	}
	redisReaderFree(reader);
	return reply;
}

static ClusterMap *
read_map(const char *bytes)
{
	RedisReply *reply = parse(bytes);
	ClusterMap *map = cluster_map_read(reply, "asked");

	freeReplyObject(reply);
	return map;
}

/* A range without replicas. */
#define RANGE(first, last, host, port) \
	"*3\r\n:" #first "\r\n:" #last "\r\n*3\r\n" host ":" #port "\r\n$2\r\nid\r\n"
#define NAME_A	"$1\r\na\r\n"
#define NAME_B	"$1\r\nb\r\n"

/* Is the slot at host:port?  Nowhere, if host is NULL. */
static bool
slot_is_at(const ClusterMap *map, uint16 slot, const char *host, int port)
{
	int			node = cluster_map_node(map, slot);

	if (host == NULL)
		return node == -1;
	return node >= 0 && node < cluster_map_nodes(map) &&
		strcmp(cluster_map_host(map, node), host) == 0 &&
		cluster_map_port(map, node) == port;
}

static void
check_map(void)
{
	/* As Redis 7 gives it: with a replica, and with metadata at each node. */
	ClusterMap *map = read_map("*3\r\n"
							   "*4\r\n:0\r\n:5460\r\n"
							   "*4\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n"
							   "*2\r\n$8\r\nhostname\r\n$1\r\na\r\n"
							   "*4\r\n$9\r\n127.0.0.1\r\n:7003\r\n$2\r\nid\r\n*0\r\n"
							   RANGE(5461, 5461, "$3\r\n::1\r\n", 7001)
							   RANGE(16383, 16383, "$9\r\n127.0.0.1\r\n", 7000));

	if (!ok(map != NULL, "a map is read"))
		return;
	ok(cluster_map_nodes(map) == 2, "a master with two ranges is one, a replica is none");
	ok(slot_is_at(map, 0, "127.0.0.1", 7000), "first slot");
	ok(slot_is_at(map, 5460, "127.0.0.1", 7000), "last slot of a range");
	ok(slot_is_at(map, 5461, "::1", 7001), "a range of one slot, at an address of IPv6");
	ok(slot_is_at(map, 5462, NULL, 0), "a slot that no master serves");
	ok(slot_is_at(map, 16383, "127.0.0.1", 7000), "last slot");
	cluster_map_free(map);
	cluster_map_free(NULL);

	map = read_map("*3\r\n" RANGE(0, 1, "$0\r\n\r\n", 1) RANGE(2, 3, "$-1\r\n", 2)
				   RANGE(4, 5, "$1\r\n?\r\n", 3));
	ok(map != NULL && slot_is_at(map, 1, "asked", 1) && slot_is_at(map, 2, "asked", 2) &&
	   slot_is_at(map, 5, "asked", 3), "a host that is not known is the one that was asked");
	cluster_map_free(map);
}

/* ------------------------------------------------------------------------
 * Answers that are refused
 * ------------------------------------------------------------------------
 */
typedef struct Refused
{
	const char *bytes;
	const char *why;
} Refused;

static const Refused refused[] = {
	{"*0\r\n", "no slot at all"},
	{"$-1\r\n", "nil"},
	{"*-1\r\n", "nil array"},
	{"+OK\r\n", "a status"},
	{":1\r\n", "an integer"},
	{"-ERR This instance has cluster support disabled\r\n", "an error"},
	{"*1\r\n:1\r\n", "a range that is an integer"},
	{"*1\r\n*0\r\n", "an empty range"},
	{"*1\r\n*2\r\n:0\r\n:1\r\n", "a range without a master"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n$-1\r\n", "a master that is nil"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n", "a master that is empty"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n", "a master without a port"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:1\r\n:1\r\n", "a host that is an integer"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n*0\r\n:1\r\n", "a host that is an array"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n-a\r\n:1\r\n", "a host that is an error"},
	{"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n$4\r\n7000\r\n", "a port that is a string"},
	{"*1\r\n*3\r\n$1\r\n0\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n", "a slot that is a string"},
	{"*1\r\n*3\r\n$-1\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n", "a slot that is nil"},
	{"*1\r\n" RANGE(0, 16384, NAME_A, 1), "a last slot that is none"},
	{"*1\r\n" RANGE(16384, 16384, NAME_A, 1), "a first slot that is none"},
	{"*1\r\n" RANGE(-1, 5, NAME_A, 1), "a negative slot"},
	{"*1\r\n" RANGE(0, -1, NAME_A, 1), "a negative last slot"},
	{"*1\r\n" RANGE(5, 4, NAME_A, 1), "a range that ends before it begins"},
	{"*1\r\n" RANGE(0, 4294967296, NAME_A, 1), "a last slot that 32 bits cut to 0"},
	{"*1\r\n" RANGE(0, 9223372036854775807, NAME_A, 1), "the largest integer"},
	{"*1\r\n" RANGE(-9223372036854775808, 1, NAME_A, 1), "the smallest integer"},
	{"*2\r\n" RANGE(0, 5, NAME_A, 1) RANGE(5, 9, NAME_B, 1), "two masters for a slot"},
	{"*2\r\n" RANGE(0, 16383, NAME_A, 1) RANGE(0, 16383, NAME_A, 1), "a range twice"},
	{"*1\r\n" RANGE(0, 1, NAME_A, 0), "port 0"},
	{"*1\r\n" RANGE(0, 1, NAME_A, -1), "a negative port"},
	{"*1\r\n" RANGE(0, 1, NAME_A, 65536), "a port above 65535"},
	{"*1\r\n" RANGE(0, 1, NAME_A, 4294967297), "a port that 32 bits cut to 1"},
	{"*1\r\n" RANGE(0, 1, "$3\r\na b\r\n", 1), "a host with a blank"},
	{"*1\r\n" RANGE(0, 1, "$3\r\na\nb\r\n", 1), "a host with a line break"},
	{"*1\r\n" RANGE(0, 1, "$3\r\na@b\r\n", 1), "a host with a sign that none has"},
	{"*2\r\n" RANGE(0, 1, NAME_A, 1) "*1\r\n:5\r\n", "nonsense behind a good range"},
};

/* One range for each of so many masters. */
static ClusterMap *
read_map_of(int nodes)
{
	char	   *bytes = malloc(nodes * 64 + 16);
	char	   *end = bytes + sprintf(bytes, "*%d\r\n", nodes);
	ClusterMap *map;

	for (int i = 0; i < nodes; i++)
		end += sprintf(end, "*3\r\n:%d\r\n:%d\r\n*2\r\n$1\r\na\r\n:%d\r\n", i, i, i + 1);
	map = read_map(bytes);
	free(bytes);
	return map;
}

/* One range whose host has "len" letters. */
static ClusterMap *
read_map_with_host_of(int len)
{
	char	   *bytes = malloc(len + 100);
	char	   *end = bytes + sprintf(bytes, "*1\r\n*3\r\n:0\r\n:0\r\n*2\r\n$%d\r\n", len);
	ClusterMap *map;

	memset(end, 'x', len);
	strcpy(end + len, "\r\n:1\r\n");
	map = read_map(bytes);
	free(bytes);
	return map;
}

static void
check_refused(void)
{
	RedisReply *with_zero;
	redisReply *host;
	ClusterMap *map;

	for (int i = 0; i < lengthof(refused); i++)
	{
		map = read_map(refused[i].bytes);
		ok(map == NULL, "no map: %s", refused[i].why);
		cluster_map_free(map);
	}

	with_zero = parse("*1\r\n" RANGE(0, 1, "$3\r\na.b\r\n", 1));
	host = ((redisReply *) with_zero)->element[0]->element[2]->element[0];
	host->str[1] = '\0';
	ok(cluster_map_read(with_zero, "asked") == NULL, "no map: a host with a zero byte");
	freeReplyObject(with_zero);

	with_zero = parse("*1\r\n" RANGE(0, 1, "$0\r\n\r\n", 1));
	ok(cluster_map_read(with_zero, "") == NULL, "no map: no host, and none was asked");
	freeReplyObject(with_zero);
}

static void
check_limits(void)
{
	ClusterMap *map = read_map_of(1000);

	ok(map != NULL && cluster_map_nodes(map) == 1000 && slot_is_at(map, 999, "a", 1000),
	   "a thousand masters");
	cluster_map_free(map);
	ok(read_map_of(1001) == NULL, "no map: more masters than that");
	ok(read_map_of(20000) == NULL, "no map: more ranges than slots");
	map = read_map_with_host_of(CLUSTER_MAX_HOST);
	ok(map != NULL && strlen(cluster_map_host(map, 0)) == CLUSTER_MAX_HOST, "a long host");
	cluster_map_free(map);
	ok(read_map_with_host_of(CLUSTER_MAX_HOST + 1) == NULL, "no map: a host that is too long");
}

static void
check_equal(void)
{
	static const struct
	{
		const char *a;
		const char *b;
		bool		equal;
		const char *what;
	}			cases[] = {
		{"*2\r\n" RANGE(0, 1, NAME_A, 1) RANGE(2, 3, NAME_B, 1),
			"*2\r\n" RANGE(2, 3, NAME_B, 1) RANGE(0, 1, NAME_A, 1), true,
			"the order does not matter"},
		{"*1\r\n" RANGE(0, 3, NAME_A, 1),
			"*2\r\n" RANGE(2, 3, NAME_A, 1) RANGE(0, 1, NAME_A, 1), true,
			"how a range is cut does not matter"},
		{"*2\r\n" RANGE(0, 1, NAME_A, 1) RANGE(2, 3, NAME_B, 1),
			"*2\r\n" RANGE(0, 2, NAME_A, 1) RANGE(3, 3, NAME_B, 1), false, "a slot that moved"},
		{"*2\r\n" RANGE(0, 1, NAME_A, 1) RANGE(2, 3, NAME_B, 1),
			"*2\r\n" RANGE(0, 1, NAME_B, 1) RANGE(2, 3, NAME_A, 1), false,
			"two that changed places"},
		{"*1\r\n" RANGE(0, 1, NAME_A, 1), "*1\r\n" RANGE(0, 1, NAME_A, 2), false, "another port"},
		{"*1\r\n" RANGE(0, 1, NAME_A, 1), "*1\r\n" RANGE(0, 1, NAME_B, 1), false, "another host"},
		{"*1\r\n" RANGE(0, 1, NAME_A, 1), "*1\r\n" RANGE(0, 2, NAME_A, 1), false, "a slot more"},
		{"*2\r\n" RANGE(0, 1, NAME_A, 1) RANGE(2, 3, NAME_B, 1),
			"*1\r\n" RANGE(0, 3, NAME_A, 1), false, "a master less"},
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		ClusterMap *a = read_map(cases[i].a);
		ClusterMap *b = read_map(cases[i].b);

		ok(cluster_map_equal(a, b) == cases[i].equal && cluster_map_equal(b, a) == cases[i].equal,
		   "%s: %s", cases[i].equal ? "equal" : "not equal", cases[i].what);
		cluster_map_free(a);
		cluster_map_free(b);
	}
}

/* ------------------------------------------------------------------------
 * Redirections
 * ------------------------------------------------------------------------
 */
typedef struct Redirect
{
	const char *bytes;
	ClusterRedirect redirect;
	uint16		slot;
	const char *host;
	int			port;
} Redirect;

static const Redirect redirects[] = {
	{"-MOVED 3999 127.0.0.1:6381\r\n", CLUSTER_MOVED, 3999, "127.0.0.1", 6381},
	{"-ASK 0 cache-1.example:1\r\n", CLUSTER_ASK, 0, "cache-1.example", 1},
	{"-MOVED 16383 :65535\r\n", CLUSTER_MOVED, 16383, "", 65535},
	{"-MOVED 1 ?:7000\r\n", CLUSTER_MOVED, 1, "", 7000},
	{"-ASK 5 2001:db8::1:7000\r\n", CLUSTER_ASK, 5, "2001:db8::1", 7000},
	{"-ASK 5 ::1:7000\r\n", CLUSTER_ASK, 5, "::1", 7000},
};

static const char *not_redirects[] = {
	"+MOVED 3999 127.0.0.1:6381\r\n", "$17\r\nMOVED 3999 a:6381\r\n", ":1\r\n", "$-1\r\n", "*0\r\n",
	"-ERR MOVED 3999 a:6381\r\n", "-MOVEDX 3999 a:6381\r\n", "-ASKING 3999 a:6381\r\n",
	"-moved 3999 a:6381\r\n",
	"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
	"-CLUSTERDOWN Hash slot not served\r\n",
	"-MOVED\r\n", "-MOVED \r\n", "-MOVED 3999\r\n", "-MOVED 3999 \r\n", "-MOVED 3999 a\r\n",
	"-MOVED 3999 a:\r\n",
	"-MOVED 3999 :\r\n", "-MOVED  a:6381\r\n", "-MOVED a:6381\r\n", "-ASK\r\n", "-ASK  \r\n",
	"-MOVED 16384 a:6381\r\n", "-MOVED -1 a:6381\r\n", "-MOVED +1 a:6381\r\n",
	"-MOVED 99999999999999999999 a:6381\r\n",
	"-MOVED 65536 a:6381\r\n", "-MOVED 1x a:6381\r\n",
	"-MOVED 1 a:0\r\n", "-MOVED 1 a:-1\r\n", "-MOVED 1 a:65536\r\n", "-MOVED 1 a:4294967297\r\n",
	"-MOVED 1 a:1 \r\n",
	"-MOVED 1 a:1x\r\n", "-MOVED 1 a b:1\r\n", "-MOVED 1 a@b:1\r\n", "-MOVED 1 a\tb:1\r\n",
};

static void
check_redirects(void)
{
	uint16		slot;
	char		host[CLUSTER_MAX_HOST + 1];
	int			port;
	RedisReply *reply;

	for (int i = 0; i < lengthof(redirects); i++)
	{
		const Redirect *expected = &redirects[i];

		reply = parse(expected->bytes);
		ok(cluster_map_redirect(reply, &slot, host, sizeof(host), &port) == expected->redirect &&
		   slot == expected->slot && port == expected->port &&
		   strcmp(host, expected->host) == 0,
		   "redirection: %.*s", (int) strcspn(expected->bytes, "\r"), expected->bytes);
		freeReplyObject(reply);
	}
	for (int i = 0; i < lengthof(not_redirects); i++)
	{
		slot = 7;
		port = 7;
		strcpy(host, "as before");
		reply = parse(not_redirects[i]);
		ok(cluster_map_redirect(reply, &slot, host, sizeof(host), &port) == CLUSTER_NO_REDIRECT &&
		   slot == 7 && port == 7 && strcmp(host, "as before") == 0,
		   "no redirection: %.*s", (int) strcspn(not_redirects[i], "\r\n"), not_redirects[i]);
		freeReplyObject(reply);
	}
}

static void
check_small_rooms(void)
{
	RedisReply *reply = parse("-MOVED 1 host:1\r\n");
	char		host[8] = "#######";
	char		large[400];
	char		bytes[400];
	uint16		slot;
	int			port;

	ok(cluster_map_redirect(reply, &slot, host, 5, &port) == CLUSTER_MOVED && host[5] == '#',
	   "a host that just fits");
	memset(host, '#', sizeof(host));
	ok(cluster_map_redirect(reply, &slot, host, 4, &port) == CLUSTER_NO_REDIRECT && host[0] == '#',
	   "no redirection: a host that does not fit");
	freeReplyObject(reply);

	snprintf(bytes, sizeof(bytes), "-MOVED 1 %0*d:1\r\n", CLUSTER_MAX_HOST, 0);
	reply = parse(bytes);
	ok(cluster_map_redirect(reply, &slot, large, sizeof(large), &port) == CLUSTER_MOVED,
	   "the longest host there is");
	freeReplyObject(reply);
	snprintf(bytes, sizeof(bytes), "-MOVED 1 %0*d:1\r\n", CLUSTER_MAX_HOST + 1, 0);
	reply = parse(bytes);
	ok(cluster_map_redirect(reply, &slot, large, sizeof(large), &port) == CLUSTER_NO_REDIRECT,
	   "no redirection: a longer one, even if there is room");
	freeReplyObject(reply);
}

static void
check_epochs(void)
{
	static const struct
	{
		const char *bytes;
		uint64		epoch;
	}			cases[] = {
		{"$44\r\ncluster_state:ok\r\ncluster_current_epoch:42\r\n\r\n", 42},
		{"$23\r\ncluster_current_epoch:7\r\n", 7},
		{"$41\r\ncluster_current_epoch:9223372036854775807\r\n", UINT64CONST(9223372036854775807)},
		{"$22\r\ncluster_current_epoch:\r\n", 0},
		{"$21\r\ncluster_current_epoch\r\n", 0},
		{"$26\r\nmy_cluster_current_epoch:5\r\n", 0},
		{"$23\r\ncluster_current_epoch:x\r\n", 0},
		{"$16\r\ncluster_state:ok\r\n", 0},
		{"$0\r\n\r\n", 0},
		{"$-1\r\n", 0},
		{"-NOPERM cluster_current_epoch:5\r\n", 0},
		{"*1\r\n:1\r\n", 0},
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		RedisReply *reply = parse(cases[i].bytes);

		ok(cluster_map_epoch_read(reply) == cases[i].epoch, "epoch %d is " UINT64_FORMAT, i,
		   cases[i].epoch);
		freeReplyObject(reply);
	}
}

int
main(void)
{
	check_slots();
	check_epochs();
	check_map();
	check_refused();
	check_limits();
	check_equal();
	check_redirects();
	check_small_rooms();
	return done_testing();
}
