/*
 * settings_redis.c
 *	  Checking uncache.redis_url.
 *
 * A message about it must not show the password in it, so it says what is wrong
 * without the value.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "redis/redis.h"
#include "redis/redis_url.h"
#include "settings/settings_redis.h"

/* What an address asks for and this version cannot give, or NULL. */
static const char *
unserved_feature(const RedisTarget *target)
{
	if (target->tls && !redis_has_tls())
		return "TLS";
	if (target->scheme == REDIS_PLAIN && target->nhosts > 1)
		return "More than one host";
	return NULL;
}

/* ALTER DATABASE and ALTER ROLE write a setting to a catalog that all can read. */
static void
warn_of_password(const RedisTarget *target, GucSource source)
{
	if (source == PGC_S_TEST && target->password != NULL)
		ereport(WARNING,
				(errmsg("the password in \"uncache.redis_url\" can be read by every user"),
				 errdetail("Settings of databases, roles and functions stand in system catalogs."),
				 errhint("Use \"uncache.redis_password_file\".")));
}

/* Check one of the addresses in the setting; *unserved says what can't be given. */
static bool
check_address(const char *url, GucSource source, const char **problem, const char **unserved)
{
	RedisTarget *target = redis_url_parse(url, problem);

	if (target == NULL)
		return false;
	*unserved = unserved_feature(target);
	warn_of_password(target, source);
	redis_url_free(target);
	return *unserved == NULL;
}

/* What is wrong with the setting; detail is NULL where nothing is. */
typedef struct AddressProblem
{
	int			sqlstate;
	const char *detail;
	const char *hint;
} AddressProblem;

static AddressProblem
find_problem(const char *setting, GucSource source)
{
	AddressProblem found = {ERRCODE_INVALID_PARAMETER_VALUE, NULL,
		"Write it as redis://host[:port][/db] or unix:///path[?db=N], with user:password@ in front of host or path; several addresses are separated by blanks."
	};
	const char *unserved = NULL;
	char	   *urls = pstrdup(setting);
	char	   *rest = urls;
	char	   *url;
	int			count = 0;

	while (found.detail == NULL && unserved == NULL &&
		   (url = strsep(&rest, REDISURL_BLANKS)) != NULL)
	{
		if (*url != '\0' && check_address(url, source, &found.detail, &unserved))
			count++;
	}
	pfree(urls);
	if (unserved != NULL)
	{
		found.sqlstate = ERRCODE_FEATURE_NOT_SUPPORTED;
		found.detail = psprintf("%s is not supported by this build of pg_uncache.", unserved);
		found.hint = "Give the address of one Redis server, as redis:// or unix://, of its Sentinels, as redis+sentinel://, or of a Redis Cluster, as redis+cluster://.";
	}
	else if (found.detail == NULL && (count == 0 || count > TARGETS_MAX))
		found.detail = count == 0 ? "The address is missing." :
			psprintf("There can be %d addresses at most.", TARGETS_MAX);
	return found;
}

bool
settings_redis_url_check(char **newval, void **extra, GucSource source)
{
	AddressProblem problem = find_problem(*newval, source);

	if (problem.detail == NULL)
		return true;
	/* Without this the server's own message would show the password. */
	GUC_check_errmsg("invalid value for parameter \"%s\"", "uncache.redis_url");
	GUC_check_errcode(problem.sqlstate);
	GUC_check_errdetail("%s", problem.detail);
	GUC_check_errhint("%s", problem.hint);
	return false;
}

/*
 * A value in postgresql.conf that a library refuses while the server starts costs
 * a WARNING, and the default holds: the worker would deliver to another Redis than
 * the one meant, and then forget it all.  So the server does not start, as with a
 * setting of PostgreSQL itself.
 */
void
settings_redis_url_refuse(void)
{
	const char *address = GetConfigOption("uncache.redis_url", true, false);
	AddressProblem problem = {0};

	if (address != NULL)
		problem = find_problem(address, PGC_S_FILE);
	if (problem.detail != NULL)
		ereport(FATAL,
				(errcode(problem.sqlstate),
				 errmsg("invalid value for parameter \"%s\"", "uncache.redis_url"),
				 errdetail_internal("%s", problem.detail),
				 errhint("%s", problem.hint)));
}
