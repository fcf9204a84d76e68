/*
 * masters.c
 *	  Plays the masters of a Redis Cluster on the loopback: all that the worker asks of one,
 *	  without keys, so that a bench can have more of them than the machine could run.
 *
 *		masters N PORT
 *
 * The masters listen on PORT of 127.1.0.1, 127.1.0.2 and so on, 250 in each network, so that
 * one port is enough, and share the slots evenly.  Prints a line when all listen, and runs
 * until it is ended.  A line on stdin moves a slot: the first slot of the second half goes to
 * the first master or comes back, and the map's epoch grows.
 *
 * Every key is one that does not exist; a scan finds nothing.  The functions of the fence
 * keep an epoch and refuse nothing.  One thread serves all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS			16384
#define MOST_ARGS		12000

typedef struct Master
{
	char		epoch[64];		/* of the fence; empty: none */
	int			version;		/* of the functions; 0: not loaded */
} Master;

typedef struct Buffer
{
	char	   *bytes;
	size_t		len;
	size_t		room;
} Buffer;

/* A listener has no buffers. */
typedef struct Peer
{
	int			fd;
	int			master;
	bool		listens;
	Buffer		in;
	Buffer		out;
} Peer;

static Master *masters;
static int	nmasters;
static int	port;
static bool moved;
static int	map_epoch = 1;
static int	poller;

static const char *args[MOST_ARGS];
static size_t lens[MOST_ARGS];
static int	nargs;

static void
add(Buffer *buffer, const char *bytes, size_t len)
{
	if (buffer->len + len > buffer->room)
	{
		buffer->room = (buffer->len + len) * 2;
		buffer->bytes = realloc(buffer->bytes, buffer->room);
	}
	memcpy(buffer->bytes + buffer->len, bytes, len);
	buffer->len += len;
}

static void __attribute__((format(printf, 2, 3)))
say(Buffer *out, const char *format,...)
{
	char		text[1024];
	va_list		list;
	int			len;

	va_start(list, format);
	len = vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	add(out, text, len);
}

static void
say_text(Buffer *out, const char *text, size_t len)
{
	say(out, "$%zu\r\n", len);
	add(out, text, len);
	add(out, "\r\n", 2);
}

static const char *
host_of(int master)
{
	static char text[32];

	snprintf(text, sizeof(text), "127.1.%d.%d", master / 250, master % 250 + 1);
	return text;
}

static bool
is(int i, const char *word)
{
	return i < nargs && lens[i] == strlen(word) && strncasecmp(args[i], word, lens[i]) == 0;
}

static int
first_slot(int master)
{
	return (int) ((long) master * SLOTS / nmasters);
}

static int
moving_slot(void)
{
	return first_slot(nmasters / 2);
}

/* The ranges of a master, at most two: their ends into "to"; returns how many. */
static int
ranges_of(int master, int from[2], int to[2])
{
	int			n = 1;

	from[0] = first_slot(master);
	to[0] = first_slot(master + 1) - 1;
	if (!moved)
		return 1;
	if (master == nmasters / 2)
		from[0]++;
	if (master == 0)
	{
		from[1] = to[1] = moving_slot();
		n = 2;
	}
	return n;
}

static void
tell_slots(Buffer *out)
{
	say(out, "*%d\r\n", nmasters + (moved ? 1 : 0));
	for (int i = 0; i < nmasters; i++)
	{
		int			from[2];
		int			to[2];
		int			n = ranges_of(i, from, to);

		for (int j = 0; j < n; j++)
			say(out, "*3\r\n:%d\r\n:%d\r\n*3\r\n$%zu\r\n%s\r\n:%d\r\n$40\r\n%040d\r\n",
				from[j], to[j], strlen(host_of(i)), host_of(i), port, i);
	}
}

static void
tell_nodes(Buffer *out, int myself)
{
	Buffer		text = {0};

	for (int i = 0; i < nmasters; i++)
	{
		int			from[2];
		int			to[2];
		int			n = ranges_of(i, from, to);

		say(&text, "%040d %s:%d@%d %smaster - 0 0 %d connected", i, host_of(i), port, port,
			i == myself ? "myself," : "", map_epoch);
		for (int j = 0; j < n; j++)
			say(&text, " %d-%d", from[j], to[j]);
		say(&text, "\n");
	}
	say_text(out, text.bytes, text.len);
	free(text.bytes);
}

static void
tell_info(Buffer *out, int master)
{
	char		text[512];
	int			len = snprintf(text, sizeof(text),
							   "redis_version:7.2.0\r\nrun_id:%040d\r\nrole:master\r\n"
							   "master_replid:%040d\r\ncluster_enabled:1\r\n", master, master);

	say_text(out, text, len);
}

static void
tell_cluster_info(Buffer *out)
{
	char		text[128];
	int			len = snprintf(text, sizeof(text), "cluster_state:ok\r\n"
							   "cluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\n",
							   map_epoch, map_epoch);

	say_text(out, text, len);
}

/* The version that stands in the text of the library. */
static int
version_in(const char *text, size_t len)
{
	static const char before[] = "local VERSION = ";
	const char *at = memmem(text, len, before, sizeof(before) - 1);

	return at ? atoi(at + sizeof(before) - 1) : 1;
}

static void
answer_function(Buffer *out, Master *master)
{
	if (is(1, "LOAD"))
	{
		master->version = version_in(args[nargs - 1], lens[nargs - 1]);
		master->epoch[0] = '\0';
		say(out, "$7\r\nuncache\r\n");
	}
	else if (master->version == 0)
		say(out, "*0\r\n");
	else
		say(out, "*1\r\n*6\r\n$12\r\nlibrary_name\r\n$7\r\nuncache\r\n$6\r\nengine\r\n$3\r\nLUA\r\n"
			"$9\r\nfunctions\r\n*1\r\n*6\r\n$4\r\nname\r\n$14\r\nuncache_status\r\n"
			"$11\r\ndescription\r\n$-1\r\n$5\r\nflags\r\n*0\r\n");
}

/* The claims are the caller's own: nobody else is here. */
static void
answer_status(Buffer *out, const Master *master)
{
	say(out, "*16\r\n:%d\r\n", master->version);
	if (master->epoch[0])
		say_text(out, master->epoch, strlen(master->epoch));
	else
		say(out, "$-1\r\n");
	say(out, ":0\r\n:0\r\n:0\r\n:0\r\n:0\r\n$0\r\n\r\n:%.*s\r\n:%.*s\r\n:0\r\n",
		nargs > 8 ? (int) lens[8] : 1, nargs > 8 ? args[8] : "0",
		nargs > 9 ? (int) lens[9] : 1, nargs > 9 ? args[9] : "0");
	say(out, "$0\r\n\r\n:0\r\n:0\r\n:-1\r\n$0\r\n\r\n");
}

static void
answer_call(Buffer *out, Master *master)
{
	if (master->version == 0)
		say(out, "-ERR Function not found\r\n");
	else if (is(1, "uncache_status"))
		answer_status(out, master);
	else if (is(1, "uncache_epoch"))
	{
		snprintf(master->epoch, sizeof(master->epoch), "%.*s%s", (int) lens[3], args[3],
				 lens[3] ? ".1" : "");
		if (master->epoch[0])
			say_text(out, master->epoch, strlen(master->epoch));
		else
			say(out, "$-1\r\n");
	}
	else
		say(out, ":%d\r\n", is(1, "uncache_beat") ? 1 : 0);
}

static void
answer(Peer *peer)
{
	Buffer	   *out = &peer->out;
	Master	   *master = &masters[peer->master];

	if (is(0, "FCALL") && nargs > 3)
		answer_call(out, master);
	else if (is(0, "UNLINK") || is(0, "WAIT"))
		say(out, ":0\r\n");
	else if (is(0, "PING"))
		say(out, "+PONG\r\n");
	else if (is(0, "ROLE"))
		say(out, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
	else if (is(0, "INFO"))
		tell_info(out, peer->master);
	else if (is(0, "CLUSTER") && is(1, "SLOTS"))
		tell_slots(out);
	else if (is(0, "CLUSTER") && is(1, "NODES"))
		tell_nodes(out, peer->master);
	else if (is(0, "CLUSTER") && is(1, "INFO"))
		tell_cluster_info(out);
	else if (is(0, "SCAN"))
		say(out, "*2\r\n$1\r\n0\r\n*0\r\n");
	else if (is(0, "FUNCTION"))
		answer_function(out, master);
	else if (is(0, "CLIENT") || is(0, "AUTH") || is(0, "SELECT") || is(0, "ASKING"))
		say(out, "+OK\r\n");
	else
		say(out, "-ERR unknown command '%.*s'\r\n", (int) lens[0], args[0]);
}

/* A number behind its mark, and the end of its line; NULL: not all of it has come. */
static const char *
number_at(const char *at, const char *end, long *number)
{
	const char *line = at < end ? memchr(at, '\n', end - at) : NULL;

	*number = line ? atol(at + 1) : 0;
	return line ? line + 1 : NULL;
}

/* Reads one command; returns its end, or NULL where not all of it has come. */
static const char *
read_command(const char *at, const char *end)
{
	long		count;

	at = number_at(at, end, &count);
	if (at == NULL || count > MOST_ARGS)
		return NULL;
	for (nargs = 0; nargs < count; nargs++)
	{
		long		len;

		at = number_at(at, end, &len);
		if (at == NULL || end - at < len + 2)
			return NULL;
		args[nargs] = at;
		lens[nargs] = len;
		at += len + 2;
	}
	return at;
}

static void
watch(Peer *peer, int how)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};

	if (peer->out.len > 0)
		event.events |= EPOLLOUT;
	epoll_ctl(poller, how, peer->fd, &event);
}

static void
leave(Peer *peer)
{
	close(peer->fd);
	free(peer->in.bytes);
	free(peer->out.bytes);
	free(peer);
}

/* Returns false where the peer has gone. */
static bool
write_some(Peer *peer)
{
	ssize_t		n = send(peer->fd, peer->out.bytes, peer->out.len, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN)
		return false;
	if (n > 0)
	{
		memmove(peer->out.bytes, peer->out.bytes + n, peer->out.len - n);
		peer->out.len -= n;
	}
	watch(peer, EPOLL_CTL_MOD);
	return true;
}

static void
serve(Peer *peer)
{
	char		bytes[65536];
	ssize_t		n = read(peer->fd, bytes, sizeof(bytes));
	const char *at;
	const char *next;

	if (n == 0 || (n < 0 && errno != EAGAIN))
	{
		leave(peer);
		return;
	}
	if (n > 0)
		add(&peer->in, bytes, n);
	at = peer->in.bytes;
	while ((next = read_command(at, peer->in.bytes + peer->in.len)) != NULL)
	{
		answer(peer);
		at = next;
	}
	peer->in.len -= at - peer->in.bytes;
	memmove(peer->in.bytes, at, peer->in.len);
	if (peer->out.len > 0 && !write_some(peer))
		leave(peer);
}

static void
welcome(const Peer *listener)
{
	Peer	   *peer = calloc(1, sizeof(Peer));
	int			one = 1;

	peer->fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
	peer->master = listener->master;
	if (peer->fd < 0)
	{
		free(peer);
		return;
	}
	setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	watch(peer, EPOLL_CTL_ADD);
}

static void
listen_for(int master)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = inet_addr(host_of(master))};
	Peer	   *peer = calloc(1, sizeof(Peer));
	int			one = 1;

	peer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	peer->master = master;
	peer->listens = true;
	setsockopt(peer->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(peer->fd, (struct sockaddr *) &here, sizeof(here)) != 0 || listen(peer->fd, 50) != 0)
	{
		perror("cannot listen");
		exit(1);
	}
	watch(peer, EPOLL_CTL_ADD);
}

/* The line on stdin; at its end this program ends, too. */
static void
take_order(void)
{
	char		bytes[64];

	if (read(0, bytes, sizeof(bytes)) <= 0)
		exit(0);
	moved = !moved;
	map_epoch++;
}

int
main(int argc, char **argv)
{
	struct epoll_event order = {.events = EPOLLIN, .data.ptr = NULL};

	if (argc != 3 || (nmasters = atoi(argv[1])) < 1 || nmasters > SLOTS)
	{
		fprintf(stderr, "usage: masters N PORT\n");
		return 1;
	}
	port = atoi(argv[2]);
	masters = calloc(nmasters, sizeof(Master));
	poller = epoll_create1(0);
	for (int i = 0; i < nmasters; i++)
		listen_for(i);
	epoll_ctl(poller, EPOLL_CTL_ADD, 0, &order);
	puts("listening");
	fflush(stdout);
	for (;;)
	{
		struct epoll_event events[64];
		int			n = epoll_wait(poller, events, 64, -1);

		for (int i = 0; i < n; i++)
		{
			Peer	   *peer = events[i].data.ptr;

			if (peer == NULL)
				take_order();
			else if (peer->listens)
				welcome(peer);
			else if ((events[i].events & EPOLLOUT) == 0 || write_some(peer))
				serve(peer);
			else
				leave(peer);
		}
	}
}
