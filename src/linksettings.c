/*
 * linksettings.c
 *	  The settings that a link to Redis is opened with.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "linksettings.h"
#include "settings.h"

static char *noted = NULL;

RedisOptions
linksettings_options(void)
{
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

	return options;
}

/* All of them in one text, to be compared. */
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
linksettings_note(void)
{
	if (noted)
		pfree(noted);
	noted = MemoryContextStrdup(TopMemoryContext, describe());
}

bool
linksettings_have_changed(void)
{
	return noted == NULL || strcmp(noted, describe()) != 0;
}
