/*
 * delay.c
 *	  A network between two sockets of this machine: everything that goes through
 *	  arrives so much later, in order, in both directions.
 *
 *		delay LISTEN TARGET MICROSECONDS
 *
 * LISTEN is a path, or a port of the loopback; TARGET is a path.
 *
 * Prints a line when it listens, and runs until it is ended.  Each direction of a
 * connection has a thread that reads and stamps, and one that waits and writes, so
 * what follows closely is not delayed any longer.  Any failure of a connection ends
 * that connection only.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES		65536

typedef struct Piece
{
	struct Piece *next;
	int64_t		due;			/* CLOCK_MONOTONIC in ns */
	ssize_t		len;			/* 0: the end */
	char		bytes[];
} Piece;

/* One direction. */
typedef struct Pipe
{
	int			from;
	int			to;
	pthread_mutex_t lock;		/* of the queue */
	pthread_cond_t more;
	Piece	   *first;
	Piece	   *last;
} Pipe;

static int64_t delay_ns;

static int64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static void
put(Pipe *pipe, Piece *piece)
{
	pthread_mutex_lock(&pipe->lock);
	if (pipe->last)
		pipe->last->next = piece;
	else
		pipe->first = piece;
	pipe->last = piece;
	pthread_cond_signal(&pipe->more);
	pthread_mutex_unlock(&pipe->lock);
}

static Piece *
take(Pipe *pipe)
{
	Piece	   *piece;

	pthread_mutex_lock(&pipe->lock);
	while (pipe->first == NULL)
		pthread_cond_wait(&pipe->more, &pipe->lock);
	piece = pipe->first;
	pipe->first = piece->next;
	if (pipe->first == NULL)
		pipe->last = NULL;
	pthread_mutex_unlock(&pipe->lock);
	return piece;
}

static void *
run_reader(void *arg)
{
	Pipe	   *pipe = arg;
	ssize_t		len;

	do
	{
		Piece	   *piece = malloc(sizeof(Piece) + PIECE_BYTES);

		len = read(pipe->from, piece->bytes, PIECE_BYTES);
		piece->len = len > 0 ? len : 0;
		piece->due = now_ns() + delay_ns;
		piece->next = NULL;
		put(pipe, piece);
	} while (len > 0);
	return NULL;
}

static void *
run_writer(void *arg)
{
	Pipe	   *pipe = arg;

	prctl(PR_SET_TIMERSLACK, 1);
	for (;;)
	{
		Piece	   *piece = take(pipe);
		struct timespec due = {piece->due / 1000000000, piece->due % 1000000000};
		ssize_t		done = 0;

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		while (done >= 0 && done < piece->len)
		{
			ssize_t		n = send(pipe->to, piece->bytes + done, piece->len - done, MSG_NOSIGNAL);

			done = n > 0 ? done + n : -1;
		}
		if (done <= 0)
		{
			/* The end, or nobody takes it: both directions end. */
			shutdown(pipe->to, SHUT_RDWR);
			shutdown(pipe->from, SHUT_RDWR);
			return NULL;
		}
		free(piece);
	}
}

static void
start_pipe(int from, int to)
{
	Pipe	   *pipe = calloc(1, sizeof(Pipe));
	pthread_t	thread;

	pipe->from = from;
	pipe->to = to;
	pthread_mutex_init(&pipe->lock, NULL);
	pthread_cond_init(&pipe->more, NULL);
	pthread_create(&thread, NULL, run_reader, pipe);
	pthread_create(&thread, NULL, run_writer, pipe);
}

static struct sockaddr_un
address_of(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return address;
}

/* Returns -1 where nobody can listen there. */
static int
listen_at(const char *where)
{
	int			port = atoi(where);
	int			listener = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = address_of(where);
	int			one = 1;

	unlink(where);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if ((port ? bind(listener, (struct sockaddr *) &in, sizeof(in)) :
		 bind(listener, (struct sockaddr *) &un, sizeof(un))) != 0 ||
		listen(listener, 200) != 0)
		return -1;
	return listener;
}

int
main(int argc, char **argv)
{
	struct sockaddr_un there;
	int			listener;
	int			one = 1;

	if (argc != 4)
	{
		fprintf(stderr, "usage: delay LISTEN TARGET MICROSECONDS\n");
		return 1;
	}
	there = address_of(argv[2]);
	delay_ns = atoll(argv[3]) * 1000;
	listener = listen_at(argv[1]);
	if (listener < 0)
	{
		perror(argv[1]);
		return 1;
	}
	puts("listening");
	fflush(stdout);
	for (;;)
	{
		int			client = accept(listener, NULL, NULL);
		int			server = socket(AF_UNIX, SOCK_STREAM, 0);

		if (client < 0 || connect(server, (struct sockaddr *) &there, sizeof(there)) != 0)
		{
			close(client);
			close(server);
			continue;
		}
		/* Fails on a path, where there is nothing to switch off. */
		setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		start_pipe(client, server);
		start_pipe(server, client);
	}
}
