/*
 * redis_socket.c
 *	  Non-blocking sockets to Redis.
 *
 * hiredis could connect by itself, but it takes the first address of a name
 * only, prefers IPv4 in a way that differs from version to version, and loses
 * errno.  Here the addresses are tried in the resolver's order.  One that fails
 * at once (refused by this machine, no route) is passed over at once.  One that
 * fails later, or never answers, makes the next connection begin with the
 * address after it, so that a name with one dead address is reached at the
 * second attempt; the socket of an attempt never changes under its caller.
 *
 * A name is resolved once per connection (redis_resolve.c), so that the next connection
 * goes to the new address when a name was moved.
 */
#include "postgres.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#include "redis/redis_int.h"

/* Idle connections are probed, so that routers in between do not forget them. */
#define KEEPALIVE_IDLE		15	/* s */
#define KEEPALIVE_INTERVAL	5	/* s */
#define KEEPALIVE_COUNT		3

/* Which of a name's addresses is tried first, modulo their number. */
static unsigned int first_address = 0;

void
redis_socket_try_another(void)
{
	first_address++;
}

static void
set_option(pgsocket sock, int level, int option, int value)
{
	/* The link works without any of the options. */
	(void) setsockopt(sock, level, option, &value, sizeof(value));
}

static void
set_tcp_options(pgsocket sock)
{
	set_option(sock, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(sock, SOL_SOCKET, SO_KEEPALIVE, 1);
#ifdef TCP_KEEPIDLE
	set_option(sock, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE);
#endif
#ifdef TCP_KEEPINTVL
	set_option(sock, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL);
#endif
#ifdef TCP_KEEPCNT
	set_option(sock, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
#endif
}

/* Returns PGINVALID_SOCKET with errno set where it fails at once. */
static pgsocket
start_connecting(const struct sockaddr *address, socklen_t len)
{
	pgsocket	sock = socket(address->sa_family, SOCK_STREAM, 0);
	int			saved_errno;

	if (sock == PGINVALID_SOCKET)
		return PGINVALID_SOCKET;
	if (pg_set_noblock(sock) && fcntl(sock, F_SETFD, FD_CLOEXEC) == 0)
	{
		if (address->sa_family != AF_UNIX)
			set_tcp_options(sock);
		if (connect(sock, address, len) == 0)
			return sock;

		/* A refusal from this machine has come already; notice it now. */
		if ((errno == EINPROGRESS || errno == EINTR) && redis_socket_status(sock) >= 0)
			return sock;
	}
	saved_errno = errno;
	close(sock);
	errno = saved_errno;
	return PGINVALID_SOCKET;
}

pgsocket
redis_socket_connect(const RedisAddress *addresses, int count)
{
	Assert(count > 0);
	for (int i = 0; i < count; i++)
	{
		const RedisAddress *a = &addresses[(first_address + i) % count];
		pgsocket	sock = start_connecting((const struct sockaddr *) &a->address, a->len);

		if (sock != PGINVALID_SOCKET)
			return sock;
	}
	return PGINVALID_SOCKET;
}

int
redis_socket_status(pgsocket sock)
{
	struct pollfd pollfd = {sock, POLLOUT, 0};
	int			error = 0;
	socklen_t	len = sizeof(error);

	Assert(sock != PGINVALID_SOCKET);
	if (poll(&pollfd, 1, 0) <= 0)
		return 0;
	if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		return -1;
	errno = error;
	return error == 0 ? 1 : -1;
}

size_t
redis_socket_untaken(pgsocket sock)
{
#ifdef SIOCOUTQ
	int			bytes;

	if (ioctl(sock, SIOCOUTQ, &bytes) == 0 && bytes > 0)
		return bytes;
#endif
	return 0;
}
