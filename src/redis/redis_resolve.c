/*
 * redis_resolve.c
 *	  From a host's name to its addresses, without waiting.
 *
 * getaddrinfo() blocks for as long as the name servers are silent, up to minutes,
 * and a worker that blocks serves no shutdown, no DROP DATABASE and no other node.
 * So names are resolved by c-ares, which reads /etc/hosts, resolv.conf and the order
 * of the two (nsswitch.conf), and whose sockets the worker waits for beside its own.
 * Each resolution has a channel of its own: it begins with the files as they are
 * then, and closing the link ends it with all of its sockets.
 *
 * Failure: a name server that is silent is passed over after TRY_MS.  An error ends
 * the resolution; its text is for the link that wanted the addresses.  c-ares calls
 * back from redis_resolve_turn() and redis_resolve_free() alone, and the callbacks only
 * note what has happened.
 *
 * Limits: only files and DNS are asked for names (not mDNS, LDAP, NIS or systemd's
 * own protocol for containers); systemd-resolved is asked where resolv.conf names its
 * address.  MAX_ADDRESSES of a name are tried.
 */
#include "postgres.h"

#include <netdb.h>
#include <sys/un.h>

#ifdef HAVE_CARES
#include <ares.h>
#endif

#include "storage/fd.h"
#include "storage/latch.h"

#include "base/clock.h"
#include "redis/redis_resolve.h"

/* Far more than a name that stands for one server has. */
#define MAX_ADDRESSES	32

/*
 * For a name server's first answer, doubled in the second round: 3 s for one that is
 * silent, 9 s for three, and a first one that is silent delays each connect by 1 s.
 */
#define TRY_MS			1000
#define TRIES			2

struct RedisResolve
{
	RedisResolveState state;
	int			naddresses;
	RedisAddress addresses[MAX_ADDRESSES];
	char		error[128];

#ifdef HAVE_CARES
	ares_channel channel;		/* NULL: none */
	int			nsockets;
	RedisSocket sockets[REDIS_MAX_SOCKETS];
#endif
};

static uint64 generation = 0;

static void
add_address(RedisResolve *resolve, const struct sockaddr *address, socklen_t len)
{
	RedisAddress *added = &resolve->addresses[resolve->naddresses];

	Assert(resolve->naddresses >= 0 && resolve->naddresses <= MAX_ADDRESSES);
	if (resolve->naddresses == MAX_ADDRESSES || len > sizeof(added->address))
		return;
	memcpy(&added->address, address, len);
	added->len = len;
	resolve->naddresses++;
}

static void
fail(RedisResolve *resolve, const char *reason)
{
	Assert(resolve->state == RESOLVE_PENDING);
	resolve->state = RESOLVE_FAILED;
	snprintf(resolve->error, sizeof(resolve->error),
			 "the host name could not be resolved: %s", reason);
}

static void
take_path(RedisResolve *resolve, const char *path)
{
	struct sockaddr_un address = {0};

	Assert(strlen(path) < sizeof(address.sun_path));
	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, path, sizeof(address.sun_path));
	add_address(resolve, (struct sockaddr *) &address, sizeof(address));
	resolve->state = RESOLVE_DONE;
}

/* With AI_NUMERICHOST this asks no server; otherwise it waits.  Returns getaddrinfo()'s result. */
static int
ask_system(RedisResolve *resolve, const char *name, const char *port, int flags)
{
	struct addrinfo hints = {0};
	struct addrinfo *addresses;
	int			rc;

	hints.ai_flags = flags;
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	rc = getaddrinfo(name, port, &hints, &addresses);
	if (rc != 0)
		return rc;
	for (const struct addrinfo *a = addresses; a != NULL; a = a->ai_next)
		add_address(resolve, a->ai_addr, a->ai_addrlen);
	freeaddrinfo(addresses);
	resolve->state = RESOLVE_DONE;
	return 0;
}

/* ------------------------------------------------------------------------
 * c-ares
 * ------------------------------------------------------------------------
 */
#ifdef HAVE_CARES

/* c-ares has opened a socket, wants other events of it, or is about to close it. */
static void
socket_changed(void *arg, ares_socket_t sock, int readable, int writable)
{
	RedisResolve *resolve = arg;
	uint32		wanted = (readable ? WL_SOCKET_READABLE : 0) |
		(writable ? WL_SOCKET_WRITEABLE : 0);
	int			i = 0;

	generation++;
	while (i < resolve->nsockets && resolve->sockets[i].socket != sock)
		i++;
	if (i == resolve->nsockets)
	{
		/* The worker does not wait for one beyond the limit: its server counts as silent. */
		if (wanted == 0 || i == REDIS_MAX_SOCKETS)
			return;
		ReserveExternalFD();
		resolve->nsockets++;
		resolve->sockets[i].socket = sock;
	}
	resolve->sockets[i].events = wanted;
	if (wanted == 0)
	{
		Assert(resolve->nsockets > 0);
		resolve->sockets[i] = resolve->sockets[--resolve->nsockets];
		ReleaseExternalFD();
	}
}

static void
answered(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
	RedisResolve *resolve = arg;

	if (status == ARES_SUCCESS)
	{
		for (const struct ares_addrinfo_node *a = result->nodes; a != NULL; a = a->ai_next)
			add_address(resolve, a->ai_addr, a->ai_addrlen);
		ares_freeaddrinfo(result);
	}
	if (resolve->naddresses > 0)
		resolve->state = RESOLVE_DONE;
	else if (status == ARES_ETIMEOUT)
		fail(resolve, "no name server has answered");
	else
		fail(resolve, ares_strerror(status == ARES_SUCCESS ? ARES_ENODATA : status));
}

static int
open_channel(RedisResolve *resolve)
{
	static bool prepared = false;
	struct ares_options options = {0};

	if (!prepared)
	{
		int			status = ares_library_init(ARES_LIB_INIT_ALL);

		if (status != ARES_SUCCESS)
			return status;
		prepared = true;
	}
	options.timeout = TRY_MS;
	options.tries = TRIES;
	options.sock_state_cb = socket_changed;
	options.sock_state_cb_data = resolve;
	return ares_init_options(&resolve->channel, &options,
							 ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
}

static void
ask(RedisResolve *resolve, const char *name, const char *port)
{
	struct ares_addrinfo_hints hints = {
		.ai_flags = ARES_AI_NUMERICSERV,
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	int			status = open_channel(resolve);

	if (status == ARES_SUCCESS)
		ares_getaddrinfo(resolve->channel, name, port, &hints, answered, resolve);
	else
	{
		resolve->channel = NULL;
		fail(resolve, ares_strerror(status));
	}
}

static void
close_channel(RedisResolve *resolve)
{
	if (resolve->channel != NULL)
		ares_destroy(resolve->channel);
	Assert(resolve->nsockets == 0); /* all were reported as closed */
}

RedisResolveState
redis_resolve_turn(RedisResolve *resolve)
{
	RedisSocket sockets[REDIS_MAX_SOCKETS];
	int			n = redis_resolve_sockets(resolve, sockets);

	/* The sockets don't block; one that is not ready costs a call. */
	for (int i = 0; i < n && resolve->state == RESOLVE_PENDING; i++)
	{
		const RedisSocket *s = &sockets[i];

		ares_process_fd(resolve->channel,
						s->events & WL_SOCKET_READABLE ? s->socket : ARES_SOCKET_BAD,
						s->events & WL_SOCKET_WRITEABLE ? s->socket : ARES_SOCKET_BAD);
	}
	if (resolve->state == RESOLVE_PENDING)
		ares_process_fd(resolve->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	return resolve->state;
}

int
redis_resolve_sockets(const RedisResolve *resolve, RedisSocket *sockets)
{
	memcpy(sockets, resolve->sockets, resolve->nsockets * sizeof(RedisSocket));
	return resolve->nsockets;
}

TimestampTz
redis_resolve_deadline(const RedisResolve *resolve)
{
	struct timeval left;

	if (resolve->state != RESOLVE_PENDING || ares_timeout(resolve->channel, NULL, &left) == NULL)
		return DT_NOEND;
	return clock_now() + left.tv_sec * USECS_PER_SEC + left.tv_usec;
}

#else							/* !HAVE_CARES */

static void
ask(RedisResolve *resolve, const char *name, const char *port)
{
	int			rc = ask_system(resolve, name, port, 0);

	if (rc != 0)
		fail(resolve, gai_strerror(rc));
}

static void
close_channel(RedisResolve *resolve)
{
}

RedisResolveState
redis_resolve_turn(RedisResolve *resolve)
{
	return resolve->state;
}

int
redis_resolve_sockets(const RedisResolve *resolve, RedisSocket *sockets)
{
	return 0;
}

TimestampTz
redis_resolve_deadline(const RedisResolve *resolve)
{
	return DT_NOEND;
}

#endif							/* HAVE_CARES */

/* ------------------------------------------------------------------------
 * With c-ares and without
 * ------------------------------------------------------------------------
 */
RedisResolve *
redis_resolve_begin(const RedisHost *host)
{
	RedisResolve *resolve = calloc(1, sizeof(RedisResolve));
	char		port[16];

	if (resolve == NULL)
		return NULL;
	snprintf(port, sizeof(port), "%d", host->port);
	if (host->port == 0)
		take_path(resolve, host->name);
	else if (ask_system(resolve, host->name, port, AI_NUMERICHOST) != 0)
		ask(resolve, host->name, port);
	return resolve;
}

void
redis_resolve_free(RedisResolve *resolve)
{
	close_channel(resolve);
	free(resolve);
}

const RedisAddress *
redis_resolve_addresses(const RedisResolve *resolve, int *count)
{
	Assert(resolve->state == RESOLVE_DONE);
	*count = resolve->naddresses;
	return resolve->addresses;
}

const char *
redis_resolve_error(const RedisResolve *resolve)
{
	Assert(resolve->state == RESOLVE_FAILED);
	return resolve->error;
}

uint64
redis_resolve_generation(void)
{
	return generation;
}
