/*
 * secrets.c
 *	  Keeps the password in uncache.redis_url out of the server log.
 *
 * Nothing in this program logs the address with its password; PostgreSQL does.  It
 * logs a setting that a reload has changed, with the new value, and it logs
 * statements (log_statement, a statement that failed), ALTER SYSTEM among them.
 * So in every message on its way to the log an address of Redis gets a "*" for its
 * password, whatever the message is about: one that comes by way of a parameter does
 * not name the setting.
 *
 * The password is taken to reach to the last "@" before a quotation mark, a blank
 * or the end: more than the address itself allows, for a password that was not
 * encoded is refused, but it is a password all the same.
 *
 * A failing statement is logged apart from the message, from memory that is not
 * ours to change; where it may hold a password, the log goes without it.
 *
 * Limits: only the log.  A client that gets its own statement back, or the
 * extension pg_stat_statements, has it as it was written.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/elog.h"

#include "secrets.h"

#define SETTING		"uncache.redis_url"

static emit_log_hook_type next_hook = NULL;

/* Whether an address of Redis begins so many bytes before its "://". */
static bool
is_scheme(const char *text, const char *end)
{
	static const char *const schemes[] = {
		"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
	};

	for (int i = 0; i < lengthof(schemes); i++)
	{
		size_t		len = strlen(schemes[i]);

		if (end - text >= len && pg_strncasecmp(end - len, schemes[i], len) == 0)
			return true;
	}
	return false;
}

/*
 * The colon before the next password, with *at where it ends; NULL: there is none.
 * Where the setting is named, whatever might be an address is taken for one.
 */
static char *
find_password(const char *text, bool named, char **at)
{
	const char *address = text;

	while ((address = strstr(address, "://")) != NULL)
	{
		bool		ours = named || is_scheme(text, address);
		const char *user = address + 3;
		const char *end = user + strcspn(user, "'\" \t\r\n");
		const char *colon;

		address = user;
		while (end > user && *end != '@')
			end--;
		colon = memchr(user, ':', end - user);
		if (ours && *end == '@' && colon != NULL && colon + 1 < end)
		{
			*at = unconstify(char *, end);
			return unconstify(char *, colon);
		}
	}
	return NULL;
}

static bool
is_named(const char *text)
{
	return strcasestr(text, SETTING) != NULL;
}

/* Replace all passwords in the text, which does not get longer. */
static void
mask_passwords(char *text)
{
	bool		named;
	char	   *colon;
	char	   *at;

	if (text == NULL)
		return;
	named = is_named(text);
	while ((colon = find_password(text, named, &at)) != NULL)
	{
		colon[1] = '*';
		memmove(colon + 2, at, strlen(at) + 1);
		text = colon + 2;
	}
}

static bool
has_secret(const char *text)
{
	char	   *at;

	return text != NULL && (is_named(text) || find_password(text, false, &at) != NULL);
}

static void
mask_log(ErrorData *edata)
{
	mask_passwords(edata->message);
	mask_passwords(edata->detail);
	mask_passwords(edata->detail_log);
	mask_passwords(edata->hint);
	mask_passwords(edata->context);
	mask_passwords(edata->internalquery);
	if (has_secret(debug_query_string))
		edata->hide_stmt = true;
	if (next_hook)
		next_hook(edata);
}

void
secrets_init(void)
{
	next_hook = emit_log_hook;
	emit_log_hook = mask_log;
}
