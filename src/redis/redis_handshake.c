/*
 * redis_handshake.c
 *	  The first commands on a link: they say who we are, and ask who the server is.
 *
 * All commands of the handshake are sent at once and cost one round trip:
 *
 *		AUTH			only where there is a user or a password
 *		SELECT			only for a database other than 0
 *		CLIENT SETNAME	for CLIENT LIST; any refusal is ignored
 *		INFO			run id, history and version
 *		PING			fails where commands would: -LOADING, -MASTERDOWN, -BUSY
 *		ROLE			master, or no link; else INFO replication
 *
 * Of these only AUTH and SELECT are needed.  The others may be refused, in whatever
 * words: an ACL, a proxy and a managed service each have their own.  Then the server is
 * taken for a master, what it does not tell stays "" or 0, and the refused commands are
 * noted for the log.  A refusal that any command would meet fails the link.
 *
 * A Sentinel is asked the same, but for SELECT; its role must be "sentinel".  A
 * target of the scheme REDIS_CLUSTER is a node that is asked about its cluster, and
 * may be a replica.
 *
 * The password file is read here, at every connect.  No text of the server is
 * repeated in an answer to AUTH, since some servers quote the command in it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "redis/redis_int.h"

#define MAX_PASSWORD_BYTES	4096	/* tokens of cloud services have up to 2 kB */

/* ------------------------------------------------------------------------
 * Reading answers
 * ------------------------------------------------------------------------
 */

/* Copy text from the server as printable ASCII; it goes to the log and to views. */
static void
copy_printable(char *to, size_t size, const char *from, size_t len)
{
	size_t		n = Min(len, size - 1);

	Assert(size > 0);
	for (size_t i = 0; i < n; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[n] = '\0';
}

static void
fail_with_answer(RedisLink *link, const char *command, const RedisReply *reply)
{
	char		text[160];
	size_t		len;
	const char *answer = redis_reply_text(reply, &len);

	copy_printable(text, sizeof(text), answer, len);
	if (redis_reply_type(reply) == REDIS_ERROR)
		redis_link_fail(link, "Redis at %s refused %s: %s", redis_link_where(link), command, text);
	else
		redis_link_fail(link, "what answers at %s is not a Redis server: unexpected answer to %s",
						redis_link_where(link), command);
}

static bool
begins_with(const RedisReply *reply, const char *beginning)
{
	size_t		len;
	const char *text = redis_reply_text(reply, &len);

	return len >= strlen(beginning) && strncmp(text, beginning, strlen(beginning)) == 0;
}

/*
 * Refusals that any command can meet.  Returns true, having failed the link,
 * when the answer is one of them, or when there is none.
 */
static bool
is_turned_away(RedisLink *link, const RedisReply *reply)
{
	const char *problem = NULL;

	if (reply == NULL)
		return true;
	if (redis_reply_type(reply) != REDIS_ERROR)
		return false;

	if (redis_reply_is_error(reply, "NOAUTH"))
		problem = "requires a password";
	else if (redis_reply_is_error(reply, "LOADING"))
		problem = "is loading its data set";
	else if (redis_reply_is_error(reply, "MASTERDOWN"))
		problem = "is a replica that has lost its master";
	else if (redis_reply_is_error(reply, "BUSY") || redis_reply_is_error(reply, "UNKILLABLE"))
		problem = "is busy with a script";
	else if (redis_reply_is_error(reply, "DENIED"))
		problem = "is in protected mode and takes no connections from other machines";
	else if (begins_with(reply, "ERR max number of clients"))
		problem = "has no connection left (maxclients)";

	if (problem != NULL)
		redis_link_fail(link, "Redis at %s %s", redis_link_where(link), problem);
	return problem != NULL;
}

/* Whether the server refuses to answer a question; then notes it. */
static bool
is_withheld(RedisLink *link, const char *question, const RedisReply *reply)
{
	char	   *withheld = redis_link_server(link)->withheld;
	size_t		size = sizeof(redis_link_server(link)->withheld);
	size_t		used = strlen(withheld);
	char		why[120];
	size_t		len;
	const char *text;

	if (redis_reply_type(reply) != REDIS_ERROR)
		return false;
	text = redis_reply_text(reply, &len);
	copy_printable(why, sizeof(why), text, len);
	if (used == 0)
		snprintf(withheld, size, "%s (%s)", question, why);
	else
		snprintf(withheld + used, size - used, ", %s", question);
	return true;
}

/* The value of a field in INFO's text; "" where it is not there. */
static void
get_info_field(const RedisReply *reply, const char *field, char *value, size_t size)
{
	size_t		len;
	const char *p = redis_reply_text(reply, &len);
	const char *end = p + len;
	size_t		field_len = strlen(field);

	Assert(size > 0 && strchr(field, ':') == NULL);
	value[0] = '\0';
	while (p < end)
	{
		const char *eol = memchr(p, '\n', end - p);
		const char *stop = eol ? eol : end;

		if (stop > p && stop[-1] == '\r')
			stop--;
		if ((size_t) (stop - p) > field_len &&
			memcmp(p, field, field_len) == 0 && p[field_len] == ':')
		{
			p += field_len + 1;
			copy_printable(value, size, p, stop - p);
			return;
		}
		p = eol ? eol + 1 : end;
	}
}

/* "7.0.15" as 70015; 0 where it does not look like that. */
static int
version_number(const char *text)
{
	int			version = 0;

	for (int part = 0; part < 3; part++)
	{
		int			n = 0;

		if (*text < '0' || *text > '9')
			return 0;
		while (*text >= '0' && *text <= '9' && n < 100)
			n = n * 10 + (*text++ - '0');
		if (n > 99)
			return 0;
		version = version * 100 + n;
		if (*text == '.')
			text++;
	}
	Assert(version >= 0 && version <= 999999);
	return version;
}

/* ------------------------------------------------------------------------
 * The answers
 * ------------------------------------------------------------------------
 */
static void
auth_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;
	const char *where = redis_link_where(link);

	if (is_turned_away(link, reply) || redis_reply_type(reply) == REDIS_STATUS)
		return;
	/* User and password are meant for the master; a Sentinel may have none. */
	if (redis_link_server(link)->is_sentinel)
		return;
	if (redis_reply_is_error(reply, "WRONGPASS") || begins_with(reply, "ERR invalid password"))
		redis_link_fail(link, "Redis at %s refused the user name or the password", where);
	else if (begins_with(reply, "ERR AUTH <password> called without") ||
			 begins_with(reply, "ERR Client sent AUTH, but no password"))
		redis_link_fail(link, "Redis at %s has no password, but one was given", where);
	else
		redis_link_fail(link, "Redis at %s refused AUTH", where);
}

static void
select_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;

	if (is_turned_away(link, reply) || redis_reply_type(reply) == REDIS_STATUS)
		return;
	if (begins_with(reply, "ERR DB index is out of range"))
		redis_link_fail(link, "Redis at %s does not have as many databases as the address asks for",
						redis_link_where(link));
	else
		fail_with_answer(link, "SELECT", reply);
}

static void
client_name_answered(void *arg, const RedisReply *reply)
{
	(void) is_turned_away(arg, reply);
}

static void
server_info_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;
	RedisServer *server = redis_link_server(link);
	char		version[32];

	if (is_turned_away(link, reply) || is_withheld(link, "INFO", reply))
		return;
	if (redis_reply_type(reply) != REDIS_STRING)
	{
		fail_with_answer(link, "INFO", reply);
		return;
	}
	get_info_field(reply, "run_id", server->run_id, sizeof(server->run_id));
	get_info_field(reply, "master_replid", server->history, sizeof(server->history));

	/* Valkey gives the version of Redis that it is compatible with as well. */
	get_info_field(reply, "redis_version", version, sizeof(version));
	if (version[0] == '\0')
		get_info_field(reply, "valkey_version", version, sizeof(version));
	server->version = version_number(version);
}

static void
ping_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;

	if (is_turned_away(link, reply) || is_withheld(link, "PING", reply))
		return;
	if (redis_reply_type(reply) != REDIS_STATUS)
		fail_with_answer(link, "PING", reply);
}

/* The last answer of the handshake has come: the role is known, or stays unknown. */
static void
finish(RedisLink *link)
{
	const char *role = redis_link_server(link)->role;
	const char *where = redis_link_where(link);

	if (redis_link_server(link)->is_sentinel)
	{
		if (role[0] == '\0' || strcmp(role, "sentinel") == 0)
			redis_link_ready(link);
		else
			redis_link_fail(link, "Redis at %s is not a Sentinel", where);
		return;
	}
	/* Any node of a cluster can be asked who its masters are. */
	if (role[0] == '\0' || strcmp(role, "master") == 0 || redis_link_server(link)->any_role)
		redis_link_ready(link);
	else if (strcmp(role, "sentinel") == 0)
		redis_link_fail(link, "Redis at %s is a Sentinel, which holds no keys", where);
	else
		redis_link_fail(link, "Redis at %s is a replica (role %s), not a master", where, role);
}

static void
replication_info_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;
	RedisServer *server = redis_link_server(link);

	if (is_turned_away(link, reply))
		return;
	if (redis_reply_type(reply) == REDIS_STRING)
		get_info_field(reply, "role", server->role, sizeof(server->role));
	else if (!is_withheld(link, "INFO replication", reply))
	{
		fail_with_answer(link, "INFO", reply);
		return;
	}
	finish(link);
}

static void
ask(RedisLink *link, RedisAnswer answer, const char *a, const char *b, const char *c)
{
	const char *argv[3] = {a, b, c};
	size_t		len[3];
	int			argc = 0;

	Assert(a != NULL);
	while (argc < 3 && argv[argc] != NULL)
	{
		len[argc] = strlen(argv[argc]);
		argc++;
	}
	(void) redis_link_send(link, argc, argv, len, answer, link);
}

static void
role_answered(void *arg, const RedisReply *reply)
{
	RedisLink  *link = arg;
	RedisServer *server = redis_link_server(link);
	const RedisReply *role;
	const char *text;
	size_t		len;

	if (is_turned_away(link, reply))
		return;
	if (is_withheld(link, "ROLE", reply))
	{
		ask(link, replication_info_answered, "INFO", "replication", NULL);
		return;
	}
	role = redis_reply_count(reply) > 0 ? redis_reply_element(reply, 0) : NULL;
	if (role == NULL || redis_reply_type(role) != REDIS_STRING)
	{
		fail_with_answer(link, "ROLE", reply);
		return;
	}
	text = redis_reply_text(role, &len);
	copy_printable(server->role, sizeof(server->role), text, len);
	finish(link);
}

/* ------------------------------------------------------------------------
 * The questions
 * ------------------------------------------------------------------------
 */

/* Read the password file's one line; fails the link where that is not possible. */
static bool
read_password_file(RedisLink *link, const char *path, char *password, size_t size)
{
	ssize_t		len = -1;
	int			fd;

	/* O_NONBLOCK, since a pipe may stand there. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
	{
		len = read(fd, password, size);
		close(fd);
	}
	if (len < 0)
	{
		redis_link_fail(link, "could not read the Redis password file \"%s\": %s",
						path, strerror(errno));
		return false;
	}

	if (len > 0 && password[len - 1] == '\n')
		len--;
	if (len > 0 && password[len - 1] == '\r')
		len--;
	if (len == 0 || (size_t) len >= size || memchr(password, '\0', len) != NULL)
	{
		redis_link_fail(link, "the Redis password file \"%s\" does not hold a password", path);
		return false;
	}
	if (memchr(password, '\n', len) != NULL)
	{
		redis_link_fail(link, "the Redis password file \"%s\" has more than one line", path);
		return false;
	}
	password[len] = '\0';
	Assert(strlen(password) == len);
	return true;
}

static bool
ask_to_authenticate(RedisLink *link, const RedisTarget *target, const RedisOptions *options)
{
	char		from_file[MAX_PASSWORD_BYTES];
	const char *password = target->password;

	if (options->password_file != NULL && options->password_file[0] != '\0')
	{
		if (!read_password_file(link, options->password_file, from_file, sizeof(from_file)))
			return false;
		password = from_file;
	}

	/* A user who is given without a password needs none (ACL's nopass). */
	if (target->user != NULL)
		ask(link, auth_answered, "AUTH", target->user, password ? password : "");
	else if (password != NULL)
		ask(link, auth_answered, "AUTH", password, NULL);

	explicit_bzero(from_file, sizeof(from_file));
	return true;
}

void
redis_handshake_send(RedisLink *link, const RedisTarget *target, const RedisOptions *options)
{
	bool		is_sentinel = target->scheme == REDIS_SENTINEL;

	redis_link_server(link)->is_sentinel = is_sentinel;
	redis_link_server(link)->any_role = target->scheme == REDIS_CLUSTER;
	if (!ask_to_authenticate(link, target, options))
		return;
	if (target->db != 0 && !is_sentinel)
	{
		char		db[16];

		snprintf(db, sizeof(db), "%d", target->db);
		ask(link, select_answered, "SELECT", db, NULL);
	}
	if (options->client_name != NULL && options->client_name[0] != '\0')
		ask(link, client_name_answered, "CLIENT", "SETNAME", options->client_name);
	ask(link, server_info_answered, "INFO", NULL, NULL);
	ask(link, ping_answered, "PING", NULL, NULL);
	ask(link, role_answered, "ROLE", NULL, NULL);
}
