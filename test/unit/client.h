/*
 * client.h
 *	  A small event loop around a link, and a record of its answers.
 */
#ifndef UNCACHE_TEST_CLIENT_H
#define UNCACHE_TEST_CLIENT_H

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "redis/redis.h"
#include "storage/latch.h"
#include "tap.h"
#include "utils/timestamp.h"

/* No test waits longer for what should happen. */
#define PATIENCE	(10 * USECS_PER_SEC)

/* Answers in the order in which they came, as text: "+OK :42 _ $5 -ERR *2 NULL ". */
typedef struct Record
{
	char		text[4096];
	int			count;			/* all of them, NULL too */
	int			nulls;
} Record;

static void
record_answer(void *arg, const RedisReply *reply)
{
	Record	   *record = arg;
	size_t		used = strlen(record->text);
	char	   *to = record->text + used;
	size_t		room = sizeof(record->text) - used;
	size_t		len;
	const char *text;

	record->count++;
	if (reply == NULL)
	{
		record->nulls++;
		snprintf(to, room, "NULL ");
		return;
	}
	text = redis_reply_text(reply, &len);
	switch (redis_reply_type(reply))
	{
		case REDIS_STATUS:
			snprintf(to, room, "+%s ", text);
			break;
		case REDIS_ERROR:
			snprintf(to, room, "-%s ", text);
			break;
		case REDIS_INTEGER:
			snprintf(to, room, ":%lld ", (long long) redis_reply_integer(reply));
			break;
		case REDIS_NIL:
			snprintf(to, room, "_ ");
			break;
		case REDIS_STRING:
			snprintf(to, room, "$%zu=%s ", len, text);
			break;
		case REDIS_ARRAY:
			snprintf(to, room, "*%zu ", redis_reply_count(reply));
			break;
		case REDIS_OTHER:
			snprintf(to, room, "? ");
			break;
	}
}

/* While the name of the host is being resolved: wait as turn() does. */
static RedisLinkState
turn_resolving(RedisLink *link, int ms)
{
	RedisSocket sockets[REDIS_MAX_SOCKETS];
	struct pollfd pollfds[REDIS_MAX_SOCKETS];
	int			n = redis_resolver_sockets(link, sockets);

	for (int i = 0; i < n; i++)
	{
		pollfds[i].fd = sockets[i].socket;
		pollfds[i].events = (sockets[i].events & WL_SOCKET_READABLE ? POLLIN : 0) |
			(sockets[i].events & WL_SOCKET_WRITEABLE ? POLLOUT : 0);
	}
	poll(pollfds, n, ms);
	return redis_turn(link, 0);
}

/* Wait for the socket or the deadline, but no longer than "ms", and turn once. */
static RedisLinkState
turn(RedisLink *link, int ms)
{
	struct pollfd pollfd = {redis_socket(link), 0, 0};
	uint32		wanted = redis_wanted_events(link);
	uint32		events = 0;
	TimestampTz left = redis_deadline(link) - GetCurrentTimestamp();

	if (redis_deadline(link) != DT_NOEND && left < ms * INT64CONST(1000))
		ms = left > 0 ? left / 1000 + 1 : 0;
	if (redis_socket(link) == PGINVALID_SOCKET && redis_state(link) == REDIS_CONNECTING)
		return turn_resolving(link, ms);
	if (wanted & WL_SOCKET_READABLE)
		pollfd.events |= POLLIN;
	if (wanted & WL_SOCKET_WRITEABLE)
		pollfd.events |= POLLOUT;
	poll(&pollfd, 1, ms);
	if (pollfd.revents & (POLLIN | POLLHUP | POLLERR))
		events |= wanted & WL_SOCKET_READABLE;
	if (pollfd.revents & (POLLOUT | POLLHUP | POLLERR))
		events |= wanted & WL_SOCKET_WRITEABLE;
	return redis_turn(link, events);
}

/* Send a command of words that blanks part. */
static bool
send_words(RedisLink *link, const char *words, RedisAnswer answer, void *arg)
{
	const char *argv[16];
	size_t		len[16];
	int			argc = 0;

	while (*words && argc < 16)
	{
		argv[argc] = words;
		len[argc] = strcspn(words, " ");
		words += len[argc++];
		words += strspn(words, " ");
	}
	return redis_send(link, argc, argv, len, answer, arg);
}

static RedisLink *
open_url(const char *url, const RedisOptions *options)
{
	const char *error;
	RedisTarget *target = redis_url_parse(url, &error);
	RedisLink  *link = redis_open(target, 0, options);

	redis_url_free(target);
	return link;
}

static double
seconds_since(TimestampTz start)
{
	return (GetCurrentTimestamp() - start) / 1e6;
}

static long
open_files(void)
{
	long		count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += lseek(fd, 0, SEEK_CUR) >= 0 || errno != EBADF;
	return count;
}

#endif							/* UNCACHE_TEST_CLIENT_H */
