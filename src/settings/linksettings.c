/*
 * linksettings.c
 *	  The settings that a link to Redis is opened with.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "utils/memutils.h"

#include "settings/linksettings.h"
#include "settings/settings.h"

static char *noted = NULL;

/* A file that was found to be readable by others; said once, while it is the same. */
typedef struct OpenSecret
{
	dev_t		device;
	ino_t		inode;
} OpenSecret;

/*
 * Say so where others on the machine may read a secret.  It is used all the same:
 * a permission that is too wide is no reason to let caches grow old.  A file of
 * root may be read by its group, as with PostgreSQL's own key files.
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
			 errhint("Permissions should be u=rw (0600) or less, or u=rw,g=r (0640) or less where root owns it.")));
}

RedisOptions
linksettings_options(void)
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
