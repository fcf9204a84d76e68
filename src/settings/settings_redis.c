/*
 * settings_redis.c
 *	  The settings that say how to reach Redis.
 *
 * uncache.redis_url is checked here.  A message about it must not show the password in
 * it, so it says what is wrong without the value.
 *
 * The other settings are handed on with each link that is opened.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "utils/guc.h"
#include "utils/memutils.h"

#include "redis/redis.h"
#include "redis/redis_url.h"
#include "settings/settings.h"
#include "settings/settings_redis.h"

/* ------------------------------------------------------------------------
 * The address
 * ------------------------------------------------------------------------
 */

/* What an address asks for and this build cannot do, or NULL. */
static const char *
unserved_feature(const RedisTarget *target)
{
	if (target->tls && !redis_has_tls())
		return "TLS";
	if (target->scheme == REDIS_PLAIN && target->nhosts > 1)
		return "More than one host";
	return NULL;
}

/* ALTER DATABASE and ALTER ROLE write a setting to a catalog that every user can read. */
static void
warn_of_password(const RedisTarget *target, GucSource source)
{
	if (source == PGC_S_TEST && target->password != NULL)
		ereport(WARNING,
				(errmsg("the password in \"uncache.redis_url\" can be read by every user"),
				 errdetail("Settings of databases, roles and functions stand in system catalogs."),
				 errhint("Use \"uncache.redis_password_file\".")));
}

/* Check one of the addresses in the setting; *unserved is what it asks for and gets not. */
static bool
check_address(const char *url, GucSource source, const char **problem, const char **unserved)
{
	RedisTarget *target = redis_url_parse(url, problem);

	Assert((target == NULL) == (*problem != NULL));
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
		"Write it as redis://host[:port][/db] or unix:///path[?db=N], with user:password@ "
		"in front of host or path; several addresses are separated by blanks."
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
	Assert(unserved == NULL || found.detail == NULL);
	if (unserved != NULL)
	{
		found.sqlstate = ERRCODE_FEATURE_NOT_SUPPORTED;
		found.detail = psprintf("%s is not supported by this build of pg_uncache.", unserved);
		found.hint = "Give the address of one Redis server, as redis:// or unix://, of its "
			"Sentinels, as redis+sentinel://, or of a Redis Cluster, as redis+cluster://.";
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
	/* PostgreSQL's own message, which this one replaces, would show the password. */
	GUC_check_errmsg("invalid value for parameter \"%s\"", "uncache.redis_url");
	GUC_check_errcode(problem.sqlstate);
	GUC_check_errdetail("%s", problem.detail);
	GUC_check_errhint("%s", problem.hint);
	return false;
}

/*
 * When a library refuses a value in postgresql.conf while the server starts, PostgreSQL
 * gives a WARNING and takes the default: the worker would deliver to another Redis than
 * the one meant, and then forget what it has delivered.  So the server does not start, as
 * with a wrong value of a setting of PostgreSQL's own.
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

/* ------------------------------------------------------------------------
 * What a link is opened with
 * ------------------------------------------------------------------------
 */
static char *noted = NULL;

/* A file that others may read.  The log says so once, until it is another file. */
typedef struct OpenSecret
{
	dev_t		device;
	ino_t		inode;
} OpenSecret;

/*
 * Tell the log where other users of the machine may read a secret.  It is used all the
 * same: a permission that is too wide is no reason to let caches grow old.  A file that
 * root owns may be readable for its group, as with PostgreSQL's own key files.
 */
static void
check_permissions(const char *path, OpenSecret *said)
{
	struct stat status;
	mode_t		forbidden;

	if (path == NULL || path[0] == '\0' || stat(path, &status) != 0 || !S_ISREG(status.st_mode))
		return;
	forbidden = status.st_uid == 0 ? S_IWGRP | S_IXGRP | S_IRWXO : S_IRWXG | S_IRWXO;
	if ((status.st_mode & forbidden) == 0)
	{
		memset(said, 0, sizeof(*said));
		return;
	}
	if (said->device == status.st_dev && said->inode == status.st_ino)
		return;
	said->device = status.st_dev;
	said->inode = status.st_ino;
	ereport(LOG,
			(errmsg("file \"%s\" holds a secret, and others may access it", path),
			 errdetail("Its permissions are %04o.", (unsigned) status.st_mode & 07777),
			 errhint("Permissions should be u=rw (0600) or less, "
					 "or u=rw,g=r (0640) or less where root owns it.")));
}

RedisOptions
settings_redis_options(void)
{
	static OpenSecret password_file;
	static OpenSecret key_file;
	RedisOptions options = {
		.connect_timeout = setting_connect_timeout,
		.command_timeout = setting_command_timeout,
		.password_file = setting_redis_password_file,
		.client_name = "pg_uncache",
		.tls_ca_file = setting_redis_tls_ca_file,
		.tls_cert_file = setting_redis_tls_cert_file,
		.tls_key_file = setting_redis_tls_key_file,
		.tls_server_name = setting_redis_tls_server_name,
	};

	check_permissions(options.password_file, &password_file);
	check_permissions(options.tls_key_file, &key_file);
	return options;
}

/* The settings in one text, to be compared. */
static char *
describe(void)
{
	return psprintf("%d\n%d\n%d\n%s\n%s\n%s\n%s\n%s\n%s", setting_delivery,
					setting_connect_timeout, setting_command_timeout,
					setting_redis_url, setting_redis_password_file,
					setting_redis_tls_ca_file, setting_redis_tls_cert_file,
					setting_redis_tls_key_file, setting_redis_tls_server_name);
}

void
settings_redis_note(void)
{
	if (noted)
		pfree(noted);
	noted = MemoryContextStrdup(TopMemoryContext, describe());
}

bool
settings_redis_have_changed(void)
{
	return noted == NULL || strcmp(noted, describe()) != 0;
}
