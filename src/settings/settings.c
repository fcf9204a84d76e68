/*
 * settings.c
 *	  The settings uncache.*, with their defaults, limits and checks.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/fault_point.h"
#include "settings/settings_redis.h"
#include "settings/settings.h"

char	   *setting_redis_url;
char	   *setting_redis_password_file;
char	   *setting_redis_tls_ca_file;
char	   *setting_redis_tls_cert_file;
char	   *setting_redis_tls_key_file;
char	   *setting_redis_tls_server_name;
char	   *setting_key_prefix;
int			setting_consistency = CONSISTENCY_READ_YOUR_WRITES;
int			setting_wait_timeout = 200;
int			setting_wait_max_keys = 10000;
int			setting_max_row_size = 16 * 1024;
int			setting_max_transaction_size = 1024 * 1024;
bool		setting_delivery = true;
int			setting_on_truncate = ON_TRUNCATE_PATTERN;
int			setting_redeliver_window = 60;
int			setting_wait_replicas = 0;
int			setting_wait_replicas_timeout = 100;
int			setting_fence_ttl = 0;
int			setting_fence_takeback = 0;
int			setting_outbox_max_size = 0;
int			setting_second_delete_delay = 0;
char	   *setting_stream;
int			setting_stream_maxlen = 100000;
int			setting_after_lost_commits = AFTER_LOST_COMMITS_REDELIVER;
int			setting_connect_timeout = 1000;
int			setting_command_timeout = 1000;
bool		setting_enabled = true;
int			setting_ring_size = 8192;
int			setting_max_database_workers = 4;
char	   *setting_databases = "";

static const struct config_enum_entry consistency_options[] = {
	{"eventual", CONSISTENCY_EVENTUAL, false},
	{"read_your_writes", CONSISTENCY_READ_YOUR_WRITES, false},
	{"strict", CONSISTENCY_STRICT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry after_lost_commits_options[] = {
	{"redeliver", AFTER_LOST_COMMITS_REDELIVER, false},
	{"flush", AFTER_LOST_COMMITS_FLUSH, false},
	{NULL, 0, false}
};

static const struct config_enum_entry on_truncate_options[] = {
	{"pattern", ON_TRUNCATE_PATTERN, false},
	{"ignore", ON_TRUNCATE_IGNORE, false},
	{"error", ON_TRUNCATE_ERROR, false},
	{NULL, 0, false}
};

/* A longer one would leave a key too little of INVALIDATION_MAX_BYTES, and a pattern, too. */
#define MAX_KEY_PREFIX	1024

static bool
check_key_prefix(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) > MAX_KEY_PREFIX)
	{
		GUC_check_errdetail("A key prefix can be %d bytes long at most.", MAX_KEY_PREFIX);
		return false;
	}
	return true;
}

/* As long as a key prefix: it is a key of Redis, and is in messages. */
#define MAX_STREAM	1024

static bool
check_stream(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) > MAX_STREAM)
	{
		GUC_check_errdetail("The name of a stream can be %d bytes long at most.", MAX_STREAM);
		return false;
	}
	return true;
}

static bool
is_list_of_names(const char *value)
{
	char	   *names = pstrdup(value);
	List	   *list;
	bool		valid = SplitIdentifierString(names, ',', &list);

	list_free(list);
	pfree(names);
	return valid;
}

#define DATABASES_DETAIL \
	"Names of databases are separated by commas; those with capital letters are in double quotes."

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	if (is_list_of_names(*newval))
		return true;
	GUC_check_errdetail("%s", DATABASES_DETAIL);
	return false;
}

/*
 * If PostgreSQL started with a value that is refused, the setting would be empty, and so
 * name all databases (see settings_redis_url_refuse()).
 */
static void
refuse_databases(void)
{
	const char *value = GetConfigOption("uncache.databases", true, false);

	if (value != NULL && !is_list_of_names(value))
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", "uncache.databases", value),
				 errdetail(DATABASES_DETAIL)));
}

List *
settings_database_names(void)
{
	List	   *names = NIL;

	/* The check hook has seen that this succeeds. */
	(void) SplitIdentifierString(pstrdup(setting_databases), ',', &names);
	return names;
}

int
settings_database_rank(const char *name)
{
	List	   *names = settings_database_names();
	ListCell   *lc;

	if (names == NIL)
		return 0;
	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return foreach_current_index(lc);
	}
	return -1;
}

static void
define_connection_settings(void)
{
	DefineCustomStringVariable("uncache.redis_url",
							   "Address of the Redis server whose keys are deleted.",
							   NULL,
							   &setting_redis_url,
							   "redis://127.0.0.1:6379/0",
							   PGC_SUSET, GUC_SUPERUSER_ONLY,
							   settings_redis_url_check, NULL, NULL);
	DefineCustomStringVariable("uncache.redis_password_file",
							   "File with the Redis password, read at every connect.",
							   "It takes the place of a password in uncache.redis_url.",
							   &setting_redis_password_file,
							   "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.connect_timeout",
							"Longest time for each step of connecting to Redis.",
							NULL,
							&setting_connect_timeout,
							1000, 10, 60 * 1000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.command_timeout",
							"Longest time in which Redis may leave a command without a byte of an "
							"answer.",
							NULL,
							&setting_command_timeout,
							1000, 10, 60 * 1000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_tls_setting(const char *name, const char *description, const char *more, char **setting)
{
	DefineCustomStringVariable(name, description, more, setting, "",
							   PGC_SUSET, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static void
define_tls_settings(void)
{
	define_tls_setting("uncache.redis_tls_ca_file",
					   "File with the CA certificates that Redis's certificate is verified with.",
					   "Empty for those of the system.",
					   &setting_redis_tls_ca_file);
	define_tls_setting("uncache.redis_tls_cert_file",
					   "File with the certificate that is shown to Redis.",
					   "Empty for none.",
					   &setting_redis_tls_cert_file);
	define_tls_setting("uncache.redis_tls_key_file",
					   "File with the private key of the certificate that is shown to Redis.",
					   NULL,
					   &setting_redis_tls_key_file);
	define_tls_setting("uncache.redis_tls_server_name",
					   "Name that Redis's certificate must have.",
					   "Empty for the host in uncache.redis_url.",
					   &setting_redis_tls_server_name);
}

static void
define_rule_settings(void)
{
	DefineCustomStringVariable("uncache.key_prefix",
							   "Text put before every key.",
							   NULL,
							   &setting_key_prefix,
							   "",
							   PGC_SUSET, 0,
							   check_key_prefix, NULL, NULL);
	DefineCustomBoolVariable("uncache.enabled",
							 "Whether rules record what has to be deleted.",
							 "Follow a time of off with uncache.invalidate_table().",
							 &setting_enabled,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("uncache.on_truncate",
							 "What TRUNCATE of a table with rules does.",
							 NULL,
							 &setting_on_truncate,
							 ON_TRUNCATE_PATTERN, on_truncate_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
}

static void
define_limit_settings(void)
{
	DefineCustomIntVariable("uncache.max_row_size",
							"Most bytes of keys that one row may record.",
							"A row that would record more is an error.",
							&setting_max_row_size,
							16 * 1024, 1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.max_transaction_size",
							"Most bytes of keys and patterns that one transaction may record.",
							"A transaction that would record more is an error.",
							&setting_max_transaction_size,
							1024 * 1024, 1, MAX_KILOBYTES,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
}

static void
define_delivery_settings(void)
{
	DefineCustomEnumVariable("uncache.consistency",
							 "What COMMIT waits for.",
							 NULL,
							 &setting_consistency,
							 CONSISTENCY_READ_YOUR_WRITES, consistency_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.wait_timeout",
							"Longest time that COMMIT waits for Redis.",
							"0 means not to wait.",
							&setting_wait_timeout,
							200, 0, INT_MAX / 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.wait_max_keys",
							"A transaction with more keys does not wait for Redis.",
							NULL,
							&setting_wait_max_keys,
							10000, 0, INT_MAX,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("uncache.delivery",
							 "Whether the worker delivers to Redis.",
							 "While it is off the outbox keeps what is committed, and nobody "
							 "waits.",
							 &setting_delivery,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.redeliver_window",
							"How long delivered invalidations are kept, to be sent again to a "
							"Redis that forgot them.",
							NULL,
							&setting_redeliver_window,
							60, 0, 24 * 3600,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

static void
define_replica_settings(void)
{
	DefineCustomIntVariable("uncache.wait_replicas",
							"Number of replicas that must acknowledge a delete before it counts "
							"as delivered.",
							"0 means not to ask them.",
							&setting_wait_replicas,
							0, 0, 64,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.wait_replicas_timeout",
							"Longest time that replicas may take to acknowledge a batch of "
							"deletes.",
							"At most three quarters of uncache.command_timeout are used.",
							&setting_wait_replicas_timeout,
							100, 1, 60 * 1000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_outage_settings(void)
{
	DefineCustomIntVariable("uncache.outbox_max_size",
							"Size of the outbox above which keys are not stored one by one while "
							"Redis is away.",
							"What their rules can produce is deleted instead when Redis is back. "
							"0 means no limit.",
							&setting_outbox_max_size,
							0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("uncache.after_lost_commits",
							 "What to delete after a crash or promotion that can have lost "
							 "commits.",
							 "redeliver: what the outbox holds; flush: all keys that the rules "
							 "can produce.",
							 &setting_after_lost_commits,
							 AFTER_LOST_COMMITS_REDELIVER, after_lost_commits_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.second_delete_delay",
							"Time after which delivered keys are deleted once more.",
							"For readers that cannot use fenced fills. 0 turns it off.",
							&setting_second_delete_delay,
							0, 0, 3600 * 1000,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_stream_settings(void)
{
	DefineCustomStringVariable("uncache.stream",
							   "Name of the Redis stream that tells others what was deleted.",
							   "Empty means not to tell.",
							   &setting_stream,
							   "",
							   PGC_SUSET, 0,
							   check_stream, NULL, NULL);
	DefineCustomIntVariable("uncache.stream_maxlen",
							"About how many entries of the stream are kept.",
							NULL,
							&setting_stream_maxlen,
							100000, 1, INT_MAX,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
}

static void
define_fence_settings(void)
{
	DefineCustomIntVariable("uncache.fence_ttl",
							"How long the fence of a key is remembered in Redis.",
							"0 turns fenced fills off. Five minutes are recommended.",
							&setting_fence_ttl,
							0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.fence_takeback",
							"How long the server that has superseded this one is unheard of until "
							"this one's readers fill again.",
							"0: never. A clock decides, so the other may still be alive.",
							&setting_fence_takeback,
							0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_preload_settings(void)
{
	DefineCustomIntVariable("uncache.ring_size",
							"Shared memory that hands invalidations to the workers.",
							NULL,
							&setting_ring_size,
							8192, 1, 1024 * 1024,
							PGC_POSTMASTER, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("uncache.max_database_workers",
							"Most databases that are served at the same time.",
							NULL,
							&setting_max_database_workers,
							4, 1, 128,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomStringVariable("uncache.databases",
							   "Names of the databases that may have a worker, in this order.",
							   "Empty means all.",
							   &setting_databases,
							   "",
							   PGC_POSTMASTER, GUC_LIST_INPUT,
							   check_databases, NULL, NULL);
}

void
settings_define(bool preloaded)
{
	Assert(!preloaded || process_shared_preload_libraries_in_progress);
	if (preloaded)
	{
		settings_redis_url_refuse();
		refuse_databases();
	}
	define_connection_settings();
	define_tls_settings();
	define_rule_settings();
	define_limit_settings();
	define_delivery_settings();
	define_replica_settings();
	define_outage_settings();
	define_stream_settings();
	define_fence_settings();
	if (preloaded)
		define_preload_settings();
	fault_point_define_setting();
	MarkGUCPrefixReserved("uncache");
}
