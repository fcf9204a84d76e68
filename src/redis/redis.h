/*
 * redis.h
 *	  A connection to one Redis server, for a process that must never block.
 *
 * Only the files of this folder include hiredis.  A link is opened, then
 * turned: every turn does the reading and writing that is possible at once and
 * calls the callbacks whose answers have arrived.  Commands may be sent as soon as the
 * link is ready and are answered in the order in which they were sent.  No
 * function of this file raises an error or waits (but for the name of a host in a
 * build without c-ares, see redis_open).
 */
#ifndef UNCACHE_REDIS_H
#define UNCACHE_REDIS_H

#include "postgres.h"
#include "datatype/timestamp.h"

#include "redis/redis_url.h"

typedef struct RedisLink RedisLink;

typedef enum RedisLinkState
{
	REDIS_CONNECTING,			/* address, socket or handshake under way */
	REDIS_READY,				/* commands are accepted */
	REDIS_FAILED,				/* see redis_error(); only redis_close() is left to do */
} RedisLinkState;

typedef enum RedisReplyType
{
	REDIS_STATUS,				/* text */
	REDIS_ERROR,				/* text, with its code in capitals in front */
	REDIS_INTEGER,				/* integer */
	REDIS_NIL,
	REDIS_STRING,				/* text, any bytes */
	REDIS_ARRAY,				/* elements */
	REDIS_OTHER,				/* no command that this program sends is answered with it */
} RedisReplyType;

/* An answer; it is freed, with all that it points to, when the callback returns. */
typedef struct RedisReply RedisReply;
extern RedisReplyType redis_reply_type(const RedisReply *reply);
extern int64 redis_reply_integer(const RedisReply *reply);	/* 0 unless INTEGER */

/* "" unless text; len may be NULL */
extern const char *redis_reply_text(const RedisReply *reply, size_t *len);
extern size_t redis_reply_count(const RedisReply *reply);	/* 0 unless ARRAY */
extern const RedisReply *redis_reply_element(const RedisReply *reply, size_t i);

/* true for a REDIS_ERROR whose code (its first word) is "code" */
extern bool redis_reply_is_error(const RedisReply *reply, const char *code);

/*
 * Called once for every command sent: with its answer, or with NULL when the
 * link failed or was closed before there was one (whether Redis has carried
 * the command out is then unknown).  It may send further commands on the link
 * (ignored where the link has failed), but must not close it.
 */
typedef void (*RedisAnswer) (void *arg, const RedisReply *reply);

typedef struct RedisOptions
{
	int			connect_timeout;	/* ms, each for the socket, TLS, the handshake */
	int			command_timeout;	/* ms without a byte moved while answers are due */
	const char *password_file;	/* empty: none */
	const char *client_name;

	/* For TLS; NULL or empty: the system's CAs, no client certificate, the host's name. */
	const char *tls_ca_file;
	const char *tls_cert_file;
	const char *tls_key_file;
	const char *tls_server_name;
} RedisOptions;

/*
 * Begin to connect to target->hosts[host].  Always returns a link (in the
 * REDIS_FAILED state where even that much failed), or NULL when memory runs out.  The
 * link copies what it needs of its arguments.  Once it has a socket that stays the
 * same for its whole life.  Without c-ares this resolves the host's name, which
 * can take as long as the system's resolver takes.
 */
extern RedisLink *redis_open(const RedisTarget *target, int host, const RedisOptions *options);

/* Whether this build can reach a target through TLS. */
extern bool redis_has_tls(void);

/* Whether this build resolves names without waiting (c-ares). */
extern bool redis_has_resolver(void);

/* Close; commands without an answer get NULL. */
extern void redis_close(RedisLink *link);

/*
 * What to wait for: the socket, the WL_SOCKET_* events, and a deadline.  While the
 * host's name is being resolved there is no socket (PGINVALID_SOCKET), but up to
 * REDIS_MAX_SOCKETS of name servers: redis_resolver_sockets() returns how many.
 * redis_generation() is greater than before when any link has got other ones of these.
 */
typedef struct RedisSocket
{
	pgsocket	socket;
	uint32		events;
} RedisSocket;

#define REDIS_MAX_SOCKETS	16	/* no resolv.conf names more servers */

extern int	redis_resolver_sockets(const RedisLink *link, RedisSocket *sockets);
extern uint64 redis_generation(void);
extern pgsocket redis_socket(const RedisLink *link);
extern uint32 redis_wanted_events(const RedisLink *link);
extern TimestampTz redis_deadline(const RedisLink *link);	/* DT_NOEND: none */

/*
 * Do what can be done without waiting: to be called when the socket is ready,
 * with the events that it is ready for, and when the deadline has passed, with
 * 0.  Callbacks are called from here.
 */
extern RedisLinkState redis_turn(RedisLink *link, uint32 events);
extern RedisLinkState redis_state(const RedisLink *link);

/* Why the link failed, in words a DBA understands, without any secret. */
extern const char *redis_error(const RedisLink *link);

/*
 * Send a command: argc arguments with their lengths.  Nothing is written to
 * the socket before the next redis_turn() (or redis_flush()).  Returns false,
 * and never calls "answer", where the link is not ready or memory ran out.
 */
extern bool redis_send(RedisLink *link, int argc, const char **argv, const size_t *argvlen,
					   RedisAnswer answer, void *arg);

/* The same for a command of at most REDIS_MAX_TEXTS null-terminated texts. */
#define REDIS_MAX_TEXTS	16
extern bool redis_send_texts(RedisLink *link, int argc, const char **argv,
							 RedisAnswer answer, void *arg);

/* Write the commands that were sent, as far as the socket takes them now. */
extern void redis_flush(RedisLink *link);

/*
 * The same for every link that redis_send() was called for since the last call; then
 * written(owner), with what redis_set_owner() has set, where it has.
 */
extern void redis_flush_all(void (*written) (void *owner));
extern void redis_set_owner(RedisLink *link, void *owner);

/* Commands sent and not answered yet; and for how long (ms) the oldest has waited for a byte. */
extern size_t redis_unanswered(const RedisLink *link);
extern int	redis_silent_ms(const RedisLink *link);

/* What the server said of itself in the handshake; "" or 0 when unknown. */
extern const char *redis_run_id(const RedisLink *link); /* new at each restart */
extern const char *redis_history(const RedisLink *link);	/* new at each promotion */
extern const char *redis_role(const RedisLink *link);	/* "master", "slave"; for tests */

/* The questions that it refused to answer, for the log; "" for none. */
extern const char *redis_withheld(const RedisLink *link);

/* 70015 for 7.0.15; for Valkey, the version of Redis that it is compatible with. */
extern int	redis_version(const RedisLink *link);

#endif							/* UNCACHE_REDIS_H */
