/*
 * redis_url.c
 *	  The setting uncache.redis_url, taken apart.
 *
 * The parser is strict: a part that it does not understand is refused, never guessed at
 * or ignored, for a delete sent to the wrong server is a delete lost.  User,
 * password, path and Sentinel's name may be percent-encoded; a "@", "/", "?",
 * "#" or "%" in them must be.  Control characters are refused however they are
 * written, so that no part can break a log line or a command.
 *
 *		redis://[user[:password]@]host[:port][/db]
 *		rediss://...								the same through TLS
 *		unix://[user[:password]@]/path[?db=N]
 *		redis+cluster://[...@]host[:port],...[/db]	rediss+cluster:// with TLS
 *		redis+sentinel://[...@]host[:port],.../name[/db]
 *
 * Whether this build can serve such an address is decided elsewhere (settings_redis.c).
 *
 * This file needs nothing of a running server, so that it can be fuzzed.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "redis/redis_url.h"

#define SENTINEL_DEFAULT_PORT	26379

/* Redis takes any number in "databases"; this is a limit against typing errors. */
#define MAX_DB					16383

/* Longest host name that DNS can carry. */
#define MAX_HOST_BYTES			253

typedef struct Parser
{
	RedisTarget *target;
	char	   *room;			/* rest of target's piece of memory, for strings */
	const char *error;			/* static text, once something was refused */
} Parser;

typedef struct SchemeName
{
	const char *prefix;
	RedisScheme scheme;
	bool		tls;
} SchemeName;

static const SchemeName scheme_names[] = {
	{"redis://", REDIS_PLAIN, false},
	{"rediss://", REDIS_PLAIN, true},
	{"unix://", REDIS_UNIX, false},
	{"redis+cluster://", REDIS_CLUSTER, false},
	{"rediss+cluster://", REDIS_CLUSTER, true},
	{"redis+sentinel://", REDIS_SENTINEL, false},
	{"rediss+sentinel://", REDIS_SENTINEL, true},
};

static bool
refuse(Parser *parser, const char *error)
{
	Assert(error != NULL);
	parser->error = error;
	return false;
}

static bool
is_control(char c)
{
	return (unsigned char) c < 0x20 || c == 0x7F;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Copy a part into the target's memory, undoing its percent-encoding. */
static bool
take_text(Parser *parser, const char *from, const char *end, char **text)
{
	char	   *to = parser->room;

	for (const char *p = from; p < end; p++)
	{
		char		c = *p;

		if (c == '%')
		{
			int			high = end - p > 2 ? hex_digit(p[1]) : -1;
			int			low = high >= 0 ? hex_digit(p[2]) : -1;

			if (low < 0)
				return refuse(parser, "A percent sign must be followed by two hexadecimal digits; "
							  "write the sign itself as %25.");
			c = (char) (high * 16 + low);
			p += 2;
		}
		if (is_control(c))
			return refuse(parser, "The address must not contain control characters.");
		*to++ = c;
	}
	*to++ = '\0';
	Assert(to - parser->room <= end - from + 1);
	*text = parser->room;
	parser->room = to;
	return true;
}

/* A decimal number of at most five digits and nothing else. */
static bool
take_number(const char *from, const char *end, int min, int max, int *number)
{
	int			n = 0;

	Assert(from <= end && min <= max);
	if (from == end || end - from > 5)
		return false;
	for (const char *p = from; p < end; p++)
	{
		if (*p < '0' || *p > '9')
			return false;
		n = n * 10 + (*p - '0');
	}
	*number = n;
	return n >= min && n <= max;
}

static bool
take_db(Parser *parser, const char *from)
{
	if (take_number(from, from + strlen(from), 0, MAX_DB, &parser->target->db))
		return true;
	return refuse(parser, "The database must be a number from 0 to " CppAsString2(MAX_DB) ".");
}

/* [user][:password]; an empty one counts as not given. */
static bool
take_user(Parser *parser, const char *from, const char *end)
{
	const char *colon = memchr(from, ':', end - from);
	const char *user_end = colon ? colon : end;

	if (user_end > from &&
		!take_text(parser, from, user_end, &parser->target->user))
		return false;
	if (colon && colon + 1 < end &&
		!take_text(parser, colon + 1, end, &parser->target->password))
		return false;
	return true;
}

static bool
is_host_name(const char *name)
{
	for (const char *p = name; *p; p++)
	{
		bool		ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			(*p >= '0' && *p <= '9') || *p == '-' || *p == '.' || *p == '_';

		if (!ok)
			return false;
	}
	return *name != '\0' && strlen(name) <= MAX_HOST_BYTES;
}

/* An IPv6 address, perhaps with a zone ("fe80::1%eth0"). */
static bool
is_ipv6_address(const char *name)
{
	char		address[INET6_ADDRSTRLEN];
	struct in6_addr binary;
	size_t		len = strcspn(name, "%");

	if (len >= sizeof(address))
		return false;
	memcpy(address, name, len);
	address[len] = '\0';
	if (inet_pton(AF_INET6, address, &binary) != 1)
		return false;
	return name[len] == '\0' || is_host_name(name + len + 1);
}

/* The name or address of a host; returns where it ends, or NULL. */
static const char *
take_host_name(Parser *parser, const char *from, const char *end, char **name)
{
	bool		bracketed = from < end && *from == '[';
	const char *name_end = memchr(from, bracketed ? ']' : ':', end - from);

	if (bracketed)
	{
		from++;
		if (name_end == NULL)
			refuse(parser, "The bracket around an IPv6 address is not closed.");
	}
	else if (name_end == NULL)
		name_end = end;
	else if (memchr(name_end + 1, ':', end - name_end - 1) != NULL)
		refuse(parser, "An IPv6 address must stand in brackets, as in redis://[::1]:6379.");

	if (parser->error == NULL && name_end == from)
		refuse(parser, "The host is missing.");
	if (parser->error != NULL || !take_text(parser, from, name_end, name))
		return NULL;

	if (bracketed && !is_ipv6_address(*name))
		refuse(parser, "What stands in brackets is not an IPv6 address.");
	else if (!bracketed && !is_host_name(*name))
		refuse(parser, "The host must be a name, an IPv4 address, or an IPv6 address in brackets.");

	return parser->error != NULL ? NULL : name_end + (bracketed ? 1 : 0);
}

/* host[:port] */
static bool
take_host(Parser *parser, const char *from, const char *end)
{
	RedisTarget *target = parser->target;
	RedisHost  *host = &target->hosts[target->nhosts];

	Assert(target->nhosts >= 0 && target->nhosts <= REDIS_MAX_HOSTS);
	if (target->nhosts == REDIS_MAX_HOSTS)
		return refuse(parser, "There can be " CppAsString2(REDIS_MAX_HOSTS) " hosts at most.");

	from = take_host_name(parser, from, end, &host->name);
	if (from == NULL)
		return false;
	host->port = target->scheme == REDIS_SENTINEL ? SENTINEL_DEFAULT_PORT : REDIS_DEFAULT_PORT;
	if (from < end &&
		(*from != ':' || !take_number(from + 1, end, 1, 65535, &host->port)))
		return refuse(parser, "The port must be a number from 1 to 65535.");
	target->nhosts++;
	return true;
}

static bool
take_hosts(Parser *parser, const char *from, const char *end)
{
	for (;;)
	{
		const char *comma = memchr(from, ',', end - from);

		if (!take_host(parser, from, comma ? comma : end))
			return false;
		if (comma == NULL)
			return true;
		from = comma + 1;
	}
}

/* What follows the hosts: [/db], or /name[/db] for Sentinel. */
static bool
take_path(Parser *parser, const char *path)
{
	if (strpbrk(path, "?#") != NULL)
		return refuse(parser, "Parameters after \"?\" or \"#\" are only known as "
					  "unix:///path?db=N.");

	if (parser->target->scheme == REDIS_SENTINEL)
	{
		const char *end;

		if (path[0] == '\0' || path[1] == '\0' || path[1] == '/')
			return refuse(parser, "The name under which Sentinel knows the master is missing, as "
						  "in redis+sentinel://host,host/name.");
		end = path + 1 + strcspn(path + 1, "/");
		if (!take_text(parser, path + 1, end, &parser->target->service))
			return false;
		path = end;
	}

	if (path[0] == '\0' || path[1] == '\0')
		return true;
	return take_db(parser, path + 1);
}

/* /path[?db=N] */
static bool
take_socket(Parser *parser, const char *path)
{
	RedisTarget *target = parser->target;
	const char *end = path + strcspn(path, "?#");

	if (*path != '/')
		return refuse(parser, "The path of a Unix socket must be absolute, with three slashes as "
					  "in unix:///path.");
	if (!take_text(parser, path, end, &target->hosts[0].name))
		return false;
	if (strlen(target->hosts[0].name) >= sizeof(((struct sockaddr_un *) NULL)->sun_path))
		return refuse(parser, "The path is longer than the path of a Unix socket can be.");
	target->nhosts = 1;

	if (*end == '\0')
		return true;
	if (strncmp(end, "?db=", 4) != 0)
		return refuse(parser, "The only parameter of a Unix socket's address is ?db=N.");
	return take_db(parser, end + 4);
}

/* Take the scheme; returns what follows it. */
static const char *
take_scheme(Parser *parser, const char *url)
{
	for (int i = 0; i < lengthof(scheme_names); i++)
	{
		size_t		len = strlen(scheme_names[i].prefix);

		if (strncmp(url, scheme_names[i].prefix, len) == 0)
		{
			parser->target->scheme = scheme_names[i].scheme;
			parser->target->tls = scheme_names[i].tls;
			return url + len;
		}
	}
	refuse(parser, "The address must begin with redis://, rediss://, unix://, redis+cluster:// or "
		   "redis+sentinel://.");
	return NULL;
}

static bool
take_url(Parser *parser, const char *url)
{
	const char *from;
	const char *end;
	const char *at;

	for (const char *p = url; *p; p++)
	{
		if (is_control(*p) || *p == ' ')
			return refuse(parser, "The address must not contain blanks or control characters.");
	}

	from = take_scheme(parser, url);
	if (from == NULL)
		return false;

	end = from + strcspn(from, "/?#");
	at = memchr(from, '@', end - from);
	if (at != NULL)
	{
		if (!take_user(parser, from, at))
			return false;
		from = at + 1;
	}
	if (parser->target->scheme == REDIS_UNIX)
		return take_socket(parser, from);

	/* An "@" further on most likely belongs to a password that was not encoded. */
	if (strchr(from, '@') != NULL)
		return refuse(parser, "Write \"@\" in a user name or password as %40, \"/\" as %2F, \"?\" "
					  "as %3F and \"#\" as %23.");
	return take_hosts(parser, from, end) && take_path(parser, end);
}

RedisTarget *
redis_url_parse(const char *url, const char **error)
{
	Parser		parser = {NULL};

	/* No string is longer decoded than encoded, and each needs its terminating zero. */
	parser.target = calloc(1, sizeof(RedisTarget) + strlen(url) + REDIS_MAX_HOSTS + 4);
	if (parser.target == NULL)
	{
		*error = "Memory ran out.";
		return NULL;
	}
	parser.room = (char *) (parser.target + 1);

	if (take_url(&parser, url))
	{
		Assert(parser.target->nhosts > 0 && parser.target->hosts[0].name != NULL);
		*error = NULL;
		return parser.target;
	}
	Assert(parser.error != NULL);
	*error = parser.error;
	redis_url_free(parser.target);
	return NULL;
}

void
redis_url_free(RedisTarget *target)
{
	free(target);
}

static const char *
scheme_prefix(const RedisTarget *target)
{
	for (int i = 0; i < lengthof(scheme_names); i++)
	{
		if (scheme_names[i].scheme == target->scheme && scheme_names[i].tls == target->tls)
			return scheme_names[i].prefix;
	}
	return "";
}

static void
append(char *to, size_t size, const char *text)
{
	size_t		used = strlen(to);
	size_t		len = Min(strlen(text), size - 1 - used);

	Assert(used < size);
	memcpy(to + used, text, len);
	to[used + len] = '\0';
}

static void
append_number(char *to, size_t size, const char *before, int number)
{
	char		text[16];

	snprintf(text, sizeof(text), "%s%d", before, number);
	append(to, size, text);
}

void
redis_url_public(const RedisTarget *target, char *to, size_t size)
{
	if (size == 0)
		return;
	to[0] = '\0';
	append(to, size, scheme_prefix(target));
	for (int i = 0; i < target->nhosts; i++)
	{
		const RedisHost *host = &target->hosts[i];
		bool		bracketed = host->port != 0 && strchr(host->name, ':') != NULL;

		append(to, size, i > 0 ? "," : "");
		append(to, size, bracketed ? "[" : "");
		append(to, size, host->name);
		append(to, size, bracketed ? "]" : "");
		if (host->port != 0)
			append_number(to, size, ":", host->port);
	}
	if (target->service != NULL)
	{
		append(to, size, "/");
		append(to, size, target->service);
	}
	if (target->scheme != REDIS_UNIX)
		append_number(to, size, "/", target->db);
	else if (target->db != 0)
		append_number(to, size, "?db=", target->db);
}
