/*
 * redis_fake_test.c
 *	  A link to servers that misbehave, each played by this program itself.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "client.h"
#include "shim.h"

#define INFO_TEXT "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n" \
	"run_id:0123456789abcdef0123456789abcdef01234567\r\n"
#define NAME_OK "+OK\r\n"
#define PONG "+PONG\r\n"
#define MASTER "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"

/* One answer of each kind, and what is recorded of them. */
static const struct
{
	const char *bytes;
	size_t		len;
	const char *recorded;
}			answers[] = {
	{"+OK\r\n", 5, "+OK "},
	{":-42\r\n", 6, ":-42 "},
	{"$-1\r\n", 5, "_ "},
	{"$5\r\nhe\0lo\r\n", 11, "$5=he "},
	{"$0\r\n\r\n", 6, "$0= "},
	{"-ERR no\r\n", 9, "-ERR no "},
	{"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", 19, "*2 "},
	{"*-1\r\n", 5, "_ "},
	{"*0\r\n", 4, "*0 "},
};

typedef struct Fake
{
	int			listener;
	int			sock;			/* -1 until somebody has connected */
	int			port;
	char		url[64];
	char		in[65536];		/* what came first; the rest is counted only */
	size_t		received;
} Fake;

static RedisOptions options = {
	.connect_timeout = 5000,.command_timeout = 5000,
	.password_file = "",.client_name = "pg_uncache"
};

static char hello[512];			/* all answers of a handshake */

/* ------------------------------------------------------------------------
 * The fake server
 * ------------------------------------------------------------------------
 */
static void
fake_start(Fake *fake)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	len = sizeof(address);

	memset(fake, 0, sizeof(*fake));
	fake->sock = -1;
	fake->listener = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fake->listener, (struct sockaddr *) &address, len) != 0 ||
		listen(fake->listener, 1) != 0 ||
		getsockname(fake->listener, (struct sockaddr *) &address, &len) != 0)
		abort();
	fcntl(fake->listener, F_SETFL, O_NONBLOCK);
	fake->port = ntohs(address.sin_port);
	snprintf(fake->url, sizeof(fake->url), "redis://127.0.0.1:%d", fake->port);
}

/* Let somebody in, and read at most "limit" bytes. */
static void
fake_step(Fake *fake, size_t limit)
{
	if (fake->sock < 0 && fake->listener >= 0)
	{
		fake->sock = accept(fake->listener, NULL, NULL);
		if (fake->sock >= 0)
		{
			int			on = 1;

			fcntl(fake->sock, F_SETFL, O_NONBLOCK);
			setsockopt(fake->sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		}
	}
	while (fake->sock >= 0 && limit > 0)
	{
		char		bytes[4096];
		ssize_t		got = recv(fake->sock, bytes, Min(limit, sizeof(bytes)), 0);

		if (got <= 0)
			return;
		if (fake->received < sizeof(fake->in) - 1)
			memcpy(fake->in + fake->received, bytes,
				   Min((size_t) got, sizeof(fake->in) - 1 - fake->received));
		fake->received += got;
		limit -= got;
	}
}

static void
fake_send(Fake *fake, const char *bytes, size_t len)
{
	while (len > 0)
	{
		ssize_t		sent = send(fake->sock, bytes, len, MSG_NOSIGNAL);

		if (sent < 0)
			return;
		bytes += sent;
		len -= sent;
	}
}

static void
fake_say(Fake *fake, const char *text)
{
	fake_send(fake, text, strlen(text));
}

static void
fake_hang_up(Fake *fake, bool reset)
{
	struct linger linger = {1, 0};

	if (reset)
		setsockopt(fake->sock, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fake->sock);
	fake->sock = -1;
	if (fake->listener >= 0)
		close(fake->listener);
	fake->listener = -1;
}

static void
fake_stop(Fake *fake)
{
	if (fake->sock >= 0)
		close(fake->sock);
	if (fake->listener >= 0)
		close(fake->listener);
}

/* ------------------------------------------------------------------------
 * Both sides
 * ------------------------------------------------------------------------
 */
#define UNTIL(condition, link, fake) \
	for (TimestampTz end_ = GetCurrentTimestamp() + PATIENCE; \
		 !(condition) && GetCurrentTimestamp() < end_;) \
		step(link, fake)

static void
step(RedisLink *link, Fake *fake)
{
	fake_step(fake, SIZE_MAX);
	turn(link, 1);
}

/* Let the link take what has been sent to it so far. */
static void
settle(RedisLink *link)
{
	struct pollfd pollfd = {redis_socket(link), POLLIN, 0};

	while (redis_state(link) != REDIS_FAILED && poll(&pollfd, 1, 1) > 0)
		redis_turn(link, WL_SOCKET_READABLE);
}

/* Connect, and have the handshake's commands at the server. */
static RedisLink *
meet(Fake *fake)
{
	RedisLink  *link;

	fake_start(fake);
	link = open_url(fake->url, &options);
	UNTIL(fake->received > 0 && strstr(fake->in, "ROLE\r\n"), link, fake);
	return link;
}

static RedisLink *
meet_ready(Fake *fake)
{
	RedisLink  *link = meet(fake);

	fake_say(fake, hello);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, fake);
	return link;
}

static void
part(RedisLink *link, Fake *fake)
{
	redis_close(link);
	fake_stop(fake);
}

/* The link failed, and its reason contains the words. */
static void
failed_with(RedisLink *link, const char *words, const char *name)
{
	bool		right = redis_state(link) == REDIS_FAILED &&
		strstr(redis_error(link), words) != NULL;

	ok(right, "%s", name);
	if (!right)
		printf("# state %d: %s\n", redis_state(link), redis_error(link));
}

static void
send_commands(RedisLink *link, Record *record, int count)
{
	for (int i = 0; i < count; i++)
		send_words(link, "GET key", record_answer, record);
	redis_flush(link);
}

/* ------------------------------------------------------------------------
 * Handshake
 * ------------------------------------------------------------------------
 */
static void
test_handshake(void)
{
	Fake		fake;
	RedisLink  *link = meet(&fake);
	Record		record = {""};

	ok(redis_state(link) == REDIS_CONNECTING,
	   "a link is connecting until the handshake is answered");
	ok(!send_words(link, "GET key", record_answer, &record) && record.count == 0,
	   "nothing can be sent before");
	fake_say(&fake, hello);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	ok(redis_state(link) == REDIS_READY, "then it is ready");
	is(redis_run_id(link), "0123456789abcdef0123456789abcdef01234567", "the run id is known");
	is(redis_role(link), "master", "the role is known");
	ok(redis_version(link) == 70015, "the version is known");
	ok(redis_deadline(link) == DT_NOEND, "an idle link has no deadline");
	part(link, &fake);
}

/* A handshake in which the answers are "first" and the usual ones after it. */
static void
check_refusal(const char *reply, const char *words)
{
	Fake		fake;
	RedisLink  *link = meet(&fake);

	fake_say(&fake, reply);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	failed_with(link, words, words);
	ok(strpbrk(redis_error(link), "\r\n\033") == NULL, "... on one line");
	part(link, &fake);
}

static void
test_refusals(void)
{
	check_refusal("-NOAUTH Authentication required.\r\n", "requires a password");
	check_refusal("-DENIED Redis is running in protected mode.\r\n", "protected mode");
	check_refusal("-ERR max number of clients reached\r\n", "maxclients");
	check_refusal(NAME_OK "$1\r\nx\r\n-LOADING Redis is loading the dataset in memory\r\n",
				  "loading its data set");
	check_refusal(NAME_OK "$1\r\nx\r\n-MASTERDOWN Link with MASTER is down\r\n", "lost its master");
	check_refusal(NAME_OK "$1\r\nx\r\n-BUSY Redis is \033 busy\r\n", "is busy with a script");
	check_refusal(NAME_OK "-BUSY Redis is busy\r\n", "is busy with a script");
	check_refusal(NAME_OK "-LOADING Redis is loading the dataset in memory\r\n",
				  "loading its data set");
	check_refusal(NAME_OK "$1\r\nx\r\n:1\r\n", "not a Redis server: unexpected answer to PING");
	check_refusal(NAME_OK "*0\r\n", "unexpected answer to INFO");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "+master\r\n", "unexpected answer to ROLE");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "*0\r\n", "unexpected answer to ROLE");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "*1\r\n:1\r\n", "unexpected answer to ROLE");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "*2\r\n$5\r\nslave\r\n$1\r\nx\r\n",
				  "replica (role slave)");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "*2\r\n$8\r\nsentinel\r\n*0\r\n", "is a Sentinel");
	check_refusal(NAME_OK "$1\r\nx\r\n" PONG "-NOPERM no\r\n$10\r\nrole:slave\r\n",
				  "replica (role slave)");
	check_refusal("HTTP/1.1 400 Bad Request\r\n\r\n", "not a Redis server");
	check_refusal(">2\r\n+a\r\n+b\r\n", "Redis");
	check_refusal("%1\r\n+a\r\n+b\r\n", "Redis");
	check_refusal("\377\376\r\n", "not a Redis server");
	check_refusal("$x\r\n", "not a Redis server");
	check_refusal("$-2\r\n", "not a Redis server");
	check_refusal("*-7\r\n", "not a Redis server");
}

/* A user with next to no rights can still be of use. */
static void
test_few_rights(void)
{
	Fake		fake;
	RedisLink  *link = meet(&fake);

	fake_say(&fake, "-NOPERM a\r\n-NOPERM b\r\n-NOPERM c\r\n-NOPERM d\r\n-NOPERM e\r\n");
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	ok(redis_state(link) == REDIS_READY, "a user who may not ask anything gets a link");
	is(redis_role(link), "", "... of unknown role");
	ok(redis_version(link) == 0, "... and version");
	part(link, &fake);

	/* Services have words of their own for what they hide. */
	link = meet(&fake);
	fake_say(&fake, "-ERR unsupported command 'client'\r\n-unsupported \033 command 'info'\r\n"
			 "-Command is not available\r\n-ERR This command is disabled\r\n-no such command\r\n");
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	ok(redis_state(link) == REDIS_READY,
	   "so does one whose service hides INFO, PING and ROLE in its own words");
	is(redis_withheld(link), "INFO (unsupported ? command 'info'), PING, ROLE, INFO replication",
	   "... and what it hides is known");
	part(link, &fake);

	link = meet(&fake);
	fake_say(&fake, "-NOPERM a\r\n$3\r\nx:y\r\n" PONG "-ERR unknown command 'ROLE'\r\n"
			 "$21\r\n# Repl\r\nrole:master\r\n\r\n");
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	is(redis_role(link), "master", "INFO replication tells the role where ROLE does not");
	part(link, &fake);
}

static void
check_auth(const char *reply, const char *words)
{
	Fake		fake;
	RedisLink  *link;
	char		url[128];

	fake_start(&fake);
	snprintf(url, sizeof(url), "redis://app:hunter2@127.0.0.1:%d/3", fake.port);
	link = open_url(url, &options);
	UNTIL(fake.received > 0 && strstr(fake.in, "ROLE\r\n"), link, &fake);
	ok(strstr(fake.in, "*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$7\r\nhunter2\r\n"
			  "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n") == fake.in, "AUTH and SELECT come first");
	fake_say(&fake, reply);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	failed_with(link, words, words);
	ok(strstr(redis_error(link), "hunter2") == NULL && strstr(redis_error(link), "app") == NULL,
	   "... and no secret is told");
	part(link, &fake);
}

static void
test_auth(void)
{
	check_auth("-WRONGPASS invalid username-password pair or user is disabled.\r\n",
			   "refused the user name or the password");
	check_auth("-ERR AUTH <password> called without any password configured\r\n",
			   "has no password, but one was given");
	check_auth("-ERR unknown command 'AUTH', with args beginning with: 'app' 'hunter2'\r\n",
			   "refused AUTH");
	check_auth(":1\r\n", "refused AUTH");
	check_auth("+OK\r\n-ERR DB index is out of range\r\n", "does not have as many databases");
	check_auth("+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n",
			   "refused SELECT: ERR SELECT is not allowed in cluster mode");
	check_auth("+OK\r\n*0\r\n", "unexpected answer to SELECT");
}

static void
test_password_file(void)
{
	char		path[] = "/tmp/uncache_pwXXXXXX";
	int			fd = mkstemp(path);
	RedisOptions with_file = options;
	Fake		fake;
	RedisLink  *link;
	char		url[128];

	with_file.password_file = path;
	fake_start(&fake);
	link = open_url(fake.url, &with_file);
	failed_with(link, "does not hold a password", "an empty password file is reported");
	part(link, &fake);

	ok(write(fd, "to ken\r\n", 8) == 8, "(a password file is written)");
	fake_start(&fake);
	snprintf(url, sizeof(url), "redis://:hunter2@127.0.0.1:%d", fake.port);
	link = open_url(url, &with_file);
	UNTIL(fake.received > 0 && strstr(fake.in, "ROLE\r\n"), link, &fake);
	ok(strstr(fake.in, "*2\r\n$4\r\nAUTH\r\n$6\r\nto ken\r\n") != NULL,
	   "the file's password is sent, without its end of line, in the place of the URL's");
	part(link, &fake);

	ok(write(fd, "more\n", 5) == 5, "(a second line is written)");
	fake_start(&fake);
	link = open_url(fake.url, &with_file);
	failed_with(link, "has more than one line",
				"... and reported, not sent as a part of the password");
	part(link, &fake);
	close(fd);
	unlink(path);

	link = open_url("redis://127.0.0.1:1", &with_file);
	failed_with(link, "127.0.0.1:1: Connection refused", "a refused connection is reported");
	redis_close(link);

	fake_start(&fake);
	link = open_url(fake.url, &with_file);
	failed_with(link, "could not read the Redis password file",
				"a missing password file is reported");
	part(link, &fake);
}

/* ------------------------------------------------------------------------
 * Pieces and ends
 * ------------------------------------------------------------------------
 */
static void
expected_record(char *to, size_t complete, size_t all)
{
	to[0] = '\0';
	for (size_t i = 0; i < all; i++)
		strcat(to, i < complete ? answers[i].recorded : "NULL ");
}

static size_t
all_answers(char *to)
{
	size_t		len = 0;

	for (int i = 0; i < lengthof(answers); i++)
	{
		memcpy(to + len, answers[i].bytes, answers[i].len);
		len += answers[i].len;
	}
	return len;
}

static void
test_pieces(void)
{
	char		bytes[256];
	char		expected[256];
	size_t		len = all_answers(bytes);
	bool		right = true;
	Fake		fake;
	RedisLink  *link;

	for (size_t cut = 1; cut < strlen(hello); cut++)
	{
		link = meet(&fake);
		fake_send(&fake, hello, cut);
		settle(link);
		right = right && redis_state(link) == REDIS_CONNECTING;
		fake_say(&fake, hello + cut);
		UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
		right = right && redis_state(link) == REDIS_READY;
		part(link, &fake);
	}
	ok(right, "a handshake cut in two anywhere is understood");

	expected_record(expected, lengthof(answers), lengthof(answers));
	right = true;
	for (size_t cut = 1; cut < len; cut++)
	{
		Record		record = {""};

		link = meet_ready(&fake);
		send_commands(link, &record, lengthof(answers));
		fake_send(&fake, bytes, cut);
		settle(link);
		fake_send(&fake, bytes + cut, len - cut);
		UNTIL(record.count == lengthof(answers), link, &fake);
		right = right && strcmp(record.text, expected) == 0 && redis_unanswered(link) == 0;
		part(link, &fake);
	}
	ok(right, "answers cut in two anywhere are understood");
}

static void
test_byte_by_byte(void)
{
	char		bytes[256];
	char		expected[256];
	size_t		len = all_answers(bytes);
	Record		record = {""};
	Fake		fake;
	RedisLink  *link = meet(&fake);

	for (size_t i = 0; i < strlen(hello); i++)
	{
		fake_send(&fake, hello + i, 1);
		settle(link);
	}
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	send_commands(link, &record, lengthof(answers));
	for (size_t i = 0; i < len; i++)
	{
		fake_send(&fake, bytes + i, 1);
		settle(link);
	}
	UNTIL(record.count == lengthof(answers), link, &fake);
	expected_record(expected, lengthof(answers), lengthof(answers));
	is(record.text, expected, "answers that come byte by byte are understood");
	part(link, &fake);
}

/* Whole answers count, the rest is NULL: wherever the server hangs up. */
static void
check_truncation(bool reset)
{
	char		bytes[256];
	size_t		len = all_answers(bytes);
	bool		right = true;

	for (size_t cut = 0; cut < len; cut++)
	{
		char		expected[256];
		size_t		complete = 0;
		size_t		end = 0;
		Record		record = {""};
		Fake		fake;
		RedisLink  *link = meet_ready(&fake);

		while ((end += answers[complete].len) <= cut)
			complete++;
		send_commands(link, &record, lengthof(answers));
		fake_step(&fake, SIZE_MAX);
		fake_send(&fake, bytes, cut);
		if (reset)
			settle(link);
		fake_hang_up(&fake, reset);
		UNTIL(redis_state(link) == REDIS_FAILED, link, &fake);
		expected_record(expected, complete, lengthof(answers));
		if (strcmp(record.text, expected) != 0 || redis_unanswered(link) != 0 ||
			!strstr(redis_error(link), "closed the connection"))
		{
			printf("# cut at %zu: %s, %s\n", cut, record.text, redis_error(link));
			right = false;
		}
		ok(!send_words(link, "GET key", record_answer, &record) || !right,
		   "nothing can be sent on a failed link");
		part(link, &fake);
	}
	ok(right, "answers cut off anywhere by a %s: the whole ones count", reset ? "reset" : "close");
}

/* The server says why it leaves, and our next write meets a closed connection. */
static void
test_last_words(void)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link = meet_ready(&fake);

	send_words(link, "GET key", record_answer, &record);
	redis_flush(link);
	fake_step(&fake, SIZE_MAX);
	fake_say(&fake, "+last\r\n");
	fake_hang_up(&fake, false);
	for (int i = 0; i < 3; i++)
	{
		send_words(link, "GET key", record_answer, &record);
		redis_flush(link);
	}
	ok(record.count == 0, "no answer is called from a flush");
	redis_turn(link, WL_SOCKET_WRITEABLE);
	ok(redis_state(link) == REDIS_FAILED, "a write to a closed connection fails the link");
	is(record.text, "+last NULL NULL NULL ", "... after the answers that had come");
	part(link, &fake);
}

/* The queue of answers due grows in the middle of its use. */
static int	numbers[600];
static int	next_number;

static void
check_number(void *arg, const RedisReply *reply)
{
	if (reply != NULL && redis_reply_integer(reply) == next_number && arg == &numbers[next_number])
		next_number++;
}

static void
test_growing_queue(void)
{
	const int	sent[] = {40, 60, 500};
	const int	answered[] = {20, 30, 550};
	int			first = 0;
	int			last = 0;
	Fake		fake;
	RedisLink  *link = meet_ready(&fake);

	for (int i = 0; i < lengthof(sent); i++)
	{
		for (int n = 0; n < sent[i]; n++)
			send_words(link, "GET key", check_number, &numbers[first++]);
		for (int n = 0; n < answered[i]; n++)
		{
			char		answer[16];

			snprintf(answer, sizeof(answer), ":%d\r\n", last++);
			fake_say(&fake, answer);
		}
		UNTIL(next_number == last || redis_state(link) == REDIS_FAILED, link, &fake);
	}
	ok(next_number == 600 && redis_unanswered(link) == 0,
	   "answers keep their order while more is sent");
	part(link, &fake);
}

static void
test_close(void)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link = meet_ready(&fake);

	send_commands(link, &record, 3);
	ok(redis_unanswered(link) == 3, "what is sent is counted until it is answered");
	redis_close(link);
	is(record.text, "NULL NULL NULL ", "closing answers NULL to all");
	fake_stop(&fake);
}

/* ------------------------------------------------------------------------
 * Hostile servers
 * ------------------------------------------------------------------------
 */

/* Send "bytes" over and over until the link gives in; returns how many were taken. */
static size_t
pour(RedisLink *link, Fake *fake, const char *bytes, size_t len)
{
	size_t		poured = 0;

	while (redis_state(link) == REDIS_READY && poured < (size_t) 64 * 1024 * 1024)
	{
		ssize_t		sent = send(fake->sock, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent > 0)
			poured += sent;
		settle(link);
	}
	return poured;
}

static void
check_flood(const char *first, const char *again, size_t len, size_t limit,
			const char *words, const char *recorded, const char *name)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link = meet_ready(&fake);
	size_t		before = mallinfo2().uordblks + mallinfo2().hblkhd;
	size_t		poured;

	send_commands(link, &record, 2);
	fake_say(&fake, first);
	settle(link);
	poured = pour(link, &fake, again, len);
	failed_with(link, words, name);
	ok(poured <= limit, "... before %zu bytes (at %zu)", limit, poured);
	ok(mallinfo2().uordblks + mallinfo2().hblkhd < before + 48 * 1024 * 1024,
	   "... and without much memory");
	is(record.text, recorded, "... and answers nothing but what is whole");
	part(link, &fake);
}

static void
test_floods(void)
{
	static char block[64 * 1024];
	static char errors[8 * 1024];
	static char nested[8 * 1024];
	static char numbers[8 * 1024];
	static char string[8 + 65000 + 2];
	const char *nobody = "NULL NULL ";
	const size_t socket_buffers = 8 * 1024 * 1024;

	memset(block, 'x', sizeof(block));
	for (size_t i = 0; i < sizeof(numbers); i += 4)
	{
		memcpy(errors + i, "-E\r\n", 4);
		memcpy(nested + i, "*1\r\n", 4);
		memcpy(numbers + i, ":1\r\n", 4);
	}
	memset(string, 'x', sizeof(string));
	memcpy(string, "$65000\r\n", 8);
	memcpy(string + 8 + 65000, "\r\n", 2);

	check_flood("*2147483647\r\n", "", 0, 0, "too large", nobody,
				"an array of two thousand million is refused at once");
	check_flood("*300000\r\n", "", 0, 0, "too large", nobody, "an array of 300,000 too");
	check_flood("*2\r\n*200000\r\n", numbers, sizeof(numbers), socket_buffers, "asked for",
				"*2 :1 ",
				"an array of 200,000 is read, but not more answers than commands");
	check_flood("", nested, sizeof(nested), socket_buffers, "", nobody,
				"nesting without end is refused");
	check_flood("$2000000000\r\n", block, sizeof(block), 16 * 1024 * 1024 + socket_buffers,
				"too large", nobody,
				"a string of two thousand million bytes is not waited for");
	check_flood("+", block, sizeof(block), socket_buffers, "too large", nobody,
				"a line without end is not waited for");
	check_flood("-", block, sizeof(block), socket_buffers, "too large", nobody,
				"nor an error without end");
	check_flood("", errors, sizeof(errors), socket_buffers, "asked for", "-E -E ",
				"errors without end answer the commands that there are, and no more");
	check_flood("*1000\r\n", string, 8 + 65000 + 2, 16 * 1024 * 1024 + socket_buffers, "too large",
				nobody,
				"nor many long strings in one answer");
}

static void
test_unasked(void)
{
	static const char *unasked[] = {"-ERR so there\r\n", "+OK\r\n", "$-1\r\n", "*0\r\n"};
	Fake		fake;
	RedisLink  *link;

	for (int i = 0; i < lengthof(unasked); i++)
	{
		Record		record = {""};

		link = meet_ready(&fake);
		send_commands(link, &record, 1);
		fake_say(&fake, "+OK\r\n");
		fake_say(&fake, unasked[i]);
		UNTIL(redis_state(link) == REDIS_FAILED, link, &fake);
		failed_with(link, "not asked for", "an answer too many fails the link");
		is(record.text, "+OK ", "... after the right one");
		part(link, &fake);
	}
}

/* ------------------------------------------------------------------------
 * Time
 * ------------------------------------------------------------------------
 */
static void
check_duration(TimestampTz start, double from, double to)
{
	double		seconds = seconds_since(start);

	ok(seconds >= from && seconds < to, "... after %.0f ms (took %.0f)", from * 1000,
	   seconds * 1000);
}

static void
test_hangs(void)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link;
	TimestampTz start = GetCurrentTimestamp();

	options.connect_timeout = 150;
	link = meet(&fake);
	fake_send(&fake, hello, strlen(hello) - 1);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);
	failed_with(link, "no answer within 150 ms", "a handshake that hangs is given up");
	check_duration(start, 0.15, 2);
	part(link, &fake);
	options.connect_timeout = 5000;

	options.command_timeout = 200;
	link = meet_ready(&fake);
	start = GetCurrentTimestamp();
	send_commands(link, &record, 2);
	fake_say(&fake, "+OK\r\n+N");
	UNTIL(redis_state(link) == REDIS_FAILED, link, &fake);
	failed_with(link, "no answer within 200 ms", "a server that hangs is given up");
	is(record.text, "+OK NULL ", "... after what it had answered");
	check_duration(start, 0.2, 2);
	part(link, &fake);
	options.command_timeout = 5000;
}

/* The time of this process, between queueing a command and writing it, is not the server's. */
static void
test_queued_for_long(void)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link;
	TimestampTz start;

	options.command_timeout = 200;
	link = meet_ready(&fake);
	send_words(link, "GET key", record_answer, &record);
	usleep(400 * 1000);
	ok(redis_deadline(link) == DT_NOEND, "a command that was not written yet has no deadline");
	ok(redis_silent_ms(link) == 0, "... nor is the server silent");
	redis_flush(link);
	ok(turn(link, 1) == REDIS_READY,
	   "a command that was queued for longer than command_timeout is given time");
	fake_step(&fake, 1000);
	fake_say(&fake, "+OK\r\n");
	UNTIL(record.count == 1, link, &fake);
	is(record.text, "+OK ", "... and is answered");

	send_words(link, "GET key", record_answer, &record);
	redis_flush(link);
	fake_say(&fake, "+OK\r\n");
	usleep(400 * 1000);
	ok(redis_turn(link, 0) == REDIS_READY,
	   "an answer that came while this process was busy counts");
	is(record.text, "+OK +OK ", "... and is called");

	start = GetCurrentTimestamp();
	send_words(link, "GET key", record_answer, &record);
	UNTIL(redis_state(link) == REDIS_FAILED, link, &fake);
	failed_with(link, "no answer within 200 ms", "a server that hangs after that is given up");
	check_duration(start, 0.2, 2);
	part(link, &fake);
	options.command_timeout = 5000;
}

/* Nor is its time while a socket connects, and while answers of the handshake come. */
static void
test_connected_for_long(void)
{
	Fake		fake;
	RedisLink  *link;

	options.connect_timeout = 200;
	fake_start(&fake);
	link = open_url(fake.url, &options);
	usleep(400 * 1000);
	ok(redis_turn(link, 0) == REDIS_CONNECTING,
	   "a link that was connected while this process was busy is given time for the handshake");
	fake_step(&fake, SIZE_MAX);
	fake_say(&fake, hello);
	usleep(400 * 1000);
	ok(redis_turn(link, 0) == REDIS_READY,
	   "... and is ready, though the answers came while this process was busy again");
	part(link, &fake);
	options.connect_timeout = 5000;
}

/* A stopped server's kernel goes on taking small commands. */
static void
test_hang_with_trickle(void)
{
	Record		record = {""};
	Fake		fake;
	RedisLink  *link;
	TimestampTz start;

	options.command_timeout = 200;
	link = meet_ready(&fake);
	start = GetCurrentTimestamp();
	while (redis_state(link) != REDIS_FAILED && seconds_since(start) < 3)
	{
		send_commands(link, &record, 1);
		turn(link, 10);
	}
	failed_with(link, "no answer within 200 ms",
				"a server that hangs is given up while commands are sent");
	check_duration(start, 0.2, 2);
	part(link, &fake);
	options.command_timeout = 5000;
}

/*
 * A command that takes several time-outs to send is no hang.  This process plays both sides, so
 * the time-out is far longer than a busy machine keeps it from running.
 */
static void
test_slow_line(void)
{
	static char value[4 * 1024 * 1024];
	const char *argv[] = {"SET", "key", value};
	const size_t argvlen[] = {3, 3, sizeof(value)};
	Record		record = {""};
	Fake		fake;
	RedisLink  *link;
	TimestampTz start;
	int			small = 4096;

	fake_start(&fake);
	setsockopt(fake.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	options.command_timeout = 600;
	link = open_url(fake.url, &options);
	UNTIL(fake.received > 0 && strstr(fake.in, "ROLE\r\n"), link, &fake);
	fake_say(&fake, hello);
	UNTIL(redis_state(link) != REDIS_CONNECTING, link, &fake);

	memset(value, 'v', sizeof(value));
	redis_send(link, 3, argv, argvlen, record_answer, &record);
	send_commands(link, &record, 1);
	start = GetCurrentTimestamp();
	while (fake.received < sizeof(value) && redis_state(link) == REDIS_READY &&
		   seconds_since(start) < 20)
	{
		TimestampTz next = GetCurrentTimestamp() + 25 * 1000;

		fake_step(&fake, 32 * 1024);
		while (GetCurrentTimestamp() < next)
			turn(link, 1);
	}
	ok(redis_state(link) == REDIS_READY && fake.received >= sizeof(value),
	   "a long command on a slow line is not taken for a hang (%.1f s)", seconds_since(start));
	fake_say(&fake, "+OK\r\n+OK\r\n");
	UNTIL(record.count == 2, link, &fake);
	is(record.text, "+OK +OK ", "... and is answered");
	part(link, &fake);
	options.command_timeout = 5000;
}

/* ------------------------------------------------------------------------
 * Unreachable
 * ------------------------------------------------------------------------
 */
static void
check_unreachable(const char *url, const char *words)
{
	RedisLink  *link = open_url(url, &options);

	for (TimestampTz end = GetCurrentTimestamp() + PATIENCE;
		 redis_state(link) == REDIS_CONNECTING && GetCurrentTimestamp() < end;)
		turn(link, 10);
	failed_with(link, words, words);
	ok(redis_turn(link, 0) == REDIS_FAILED && redis_wanted_events(link) == 0 &&
	   redis_deadline(link) == DT_NOEND, "... and nothing more is wanted");
	redis_flush(link);
	redis_close(link);
}

static void
test_unreachable(void)
{
	check_unreachable("redis://127.0.0.1:1",
					  "could not connect to Redis at 127.0.0.1:1: Connection refused");
	check_unreachable("redis://[::1]:1", "could not connect to Redis at [::1]:1: ");
	check_unreachable("redis://localhost:1",
					  "could not connect to Redis at localhost:1: Connection refused");
	check_unreachable("redis://no-such-host.invalid",
					  "at no-such-host.invalid:6379: the host name could not be resolved");
	check_unreachable("unix:///tmp/no/such/socket",
					  "could not connect to Redis at /tmp/no/such/socket: "
					  "No such file or directory");
	check_unreachable("rediss://127.0.0.1:1", "TLS");

	shim_refuse_fds = true;
	check_unreachable("redis://127.0.0.1:1", "max_files_per_process");
	shim_refuse_fds = false;
}

/* Only links that commands were sent on are written to, each once. */
static char written_to[64];

static void
note_written(void *owner)
{
	snprintf(written_to + strlen(written_to), sizeof(written_to) - strlen(written_to), "%s",
			 (const char *) owner);
}

static void
test_flush_all(void)
{
	Record		record = {""};
	Fake		fakes[3];
	RedisLink  *links[3];

	for (int i = 0; i < lengthof(links); i++)
	{
		links[i] = meet_ready(&fakes[i]);
		fakes[i].received = 0;
	}
	redis_set_owner(links[0], "a");
	redis_set_owner(links[1], "b");
	redis_flush_all(note_written);
	is(written_to, "", "no link is written to that nothing was sent on");

	for (int i = 0; i < 2; i++)
		send_words(links[1], "GET key", record_answer, &record);
	send_words(links[2], "GET key", record_answer, &record);
	redis_flush_all(note_written);
	redis_flush_all(note_written);
	is(written_to, "b", "a link is written to once, and its owner is told");
	for (int i = 0; i < lengthof(links); i++)
		fake_step(&fakes[i], SIZE_MAX);
	ok(fakes[0].received == 0 && fakes[1].received > 0 && fakes[2].received > 0,
	   "... and so is one without an owner");

	send_words(links[0], "GET key", record_answer, &record);
	send_words(links[1], "GET key", record_answer, &record);
	part(links[0], &fakes[0]);
	redis_flush_all(note_written);
	is(written_to, "bb", "a link that was closed meanwhile is forgotten");
	part(links[1], &fakes[1]);
	part(links[2], &fakes[2]);
}

/* A callback may send. */
static RedisLink *echo_link;

static void
send_again(void *arg, const RedisReply *reply)
{
	int		   *left = arg;

	if (reply != NULL && --*left > 0)
	{
		send_words(echo_link, "GET key", send_again, left);
		redis_flush(echo_link);
	}
}

static void
test_sending_callback(void)
{
	int			left = 100;
	int			answered = 0;
	Fake		fake;

	echo_link = meet_ready(&fake);
	fake.received = 0;
	send_words(echo_link, "GET key", send_again, &left);
	for (TimestampTz end = GetCurrentTimestamp() + PATIENCE;
		 left > 0 && GetCurrentTimestamp() < end;)
	{
		step(echo_link, &fake);
		while (fake.received > 0 &&
			   answered < fake.received / strlen("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"))
		{
			fake_say(&fake, "+OK\r\n");
			answered++;
		}
	}
	ok(left == 0 && redis_state(echo_link) == REDIS_READY, "an answer may send the next command");
	part(echo_link, &fake);
}

int
main(void)
{
	long		files = open_files();

	signal(SIGPIPE, SIG_IGN);
	snprintf(hello, sizeof(hello), NAME_OK "$%zu\r\n%s\r\n" PONG MASTER, strlen(INFO_TEXT),
			 INFO_TEXT);

	test_handshake();
	test_refusals();
	test_few_rights();
	test_auth();
	test_password_file();
	test_pieces();
	test_byte_by_byte();
	check_truncation(false);
	check_truncation(true);
	test_last_words();
	test_growing_queue();
	test_close();
	test_floods();
	test_unasked();
	test_hangs();
	test_queued_for_long();
	test_connected_for_long();
	test_hang_with_trickle();
	test_slow_line();
	test_unreachable();
	test_flush_all();
	test_sending_callback();

	ok(shim_external_fds == 0, "every socket was accounted for");
	ok(open_files() == files, "every socket was closed");
	return done_testing();
}
