/*
 * redis_fuzz.c
 *	  Any bytes as the answers of a Redis server.
 *
 * The first byte says in pieces of which size the rest arrives, the second how
 * many commands are sent once the link is ready.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "redis/redis.h"
#include "storage/latch.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

static int	listener = -1;
static RedisTarget *target;
static int	answered;

/* A server's socket, which the fuzzer's process holds itself. */
static void
start_listening(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char		url[128];
	const char *error;

	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/uncache_fuzz.%d", (int) getpid());
	unlink(address.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(listener, 1) != 0)
		abort();
	snprintf(url, sizeof(url), "unix://%s", address.sun_path);
	target = redis_url_parse(url, &error);
	signal(SIGPIPE, SIG_IGN);
}

static void
stop_listening(void)
{
	if (target != NULL)
		unlink(target->hosts[0].name);
}

/* Look at every byte of an answer. */
static void
walk(const RedisReply *reply, int depth)
{
	size_t		len;
	const char *text = redis_reply_text(reply, &len);
	volatile char sum = 0;

	if (depth > 8)
		abort();
	for (size_t i = 0; i < len; i++)
		sum += text[i];
	(void) sum;
	for (size_t i = 0; i < redis_reply_count(reply); i++)
		walk(redis_reply_element(reply, i), depth + 1);
	(void) redis_reply_is_error(reply, "LOADING");
	(void) redis_reply_integer(reply);
}

static void
answer(void *arg, const RedisReply *reply)
{
	bool	   *called = arg;

	if (*called)
		abort();
	*called = true;
	answered++;
	if (reply != NULL)
		walk(reply, 0);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	RedisOptions options = {
		.connect_timeout = 60000,
		.command_timeout = 60000,
		.client_name = "fuzz"
	};
	const char *argv[] = {"GET", "key"};
	const size_t argvlen[] = {3, 3};
	bool		called[256] = {false};
	int			sent = 0;
	int			wanted;
	size_t		piece;
	RedisLink  *link;
	int			sock;

	if (size < 2)
		return 0;
	if (listener < 0)
	{
		start_listening();
		atexit(stop_listening);
	}
	piece = data[0] ? data[0] : 4096;
	wanted = data[1];
	data += 2;
	size -= 2;

	answered = 0;
	link = redis_open(target, 0, &options);
	sock = accept(listener, NULL, NULL);
	while (size > 0 && redis_turn(link, WL_SOCKET_WRITEABLE) != REDIS_FAILED)
	{
		size_t		len = Min(piece, size);

		while (redis_state(link) == REDIS_READY && sent < wanted &&
			   redis_send(link, 2, argv, argvlen, answer, &called[sent]))
			sent++;
		if (send(sock, data, len, MSG_NOSIGNAL) != (ssize_t) len)
			abort();
		data += len;
		size -= len;
		redis_turn(link, WL_SOCKET_READABLE);
	}
	close(sock);
	redis_turn(link, WL_SOCKET_READABLE);
	if (redis_state(link) != REDIS_FAILED || redis_error(link)[0] == '\0' ||
		redis_unanswered(link) != 0)
		abort();
	redis_close(link);
	if (answered != sent)
		abort();
	return 0;
}
