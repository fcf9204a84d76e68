/*
 * secrets.c
 *	  Keeps the password in uncache.redis_url out of the server log.
 *
 * Nothing in this program logs the address with its password; PostgreSQL does.  It
 * logs a setting that a reload has changed, with the new value, and it logs
 * statements (log_statement, a statement that failed), ALTER SYSTEM among them.
 * So each message on its way to the log that names the setting gets a "*" for
 * the password, whatever it is about.
 *
 * The password is taken to reach to the last "@" before a quotation mark, a blank
 * or the end: more than the address itself allows, for a password that was not
 * encoded is refused, but it is a password all the same.
 *
 * A failing statement is logged apart from the message, from memory that is not
 * ours to change; where it names the setting, the log goes without it.
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

/* Replace the password of each address in the text, which can only get shorter. */
static void
mask_addresses(char *text)
{
	char	   *address = text;

	while ((address = strstr(address, "://")) != NULL)
	{
		char	   *user = address + 3;
		char	   *end = user + strcspn(user, "'\" \t\r\n");
		char	   *at = end;
		char	   *colon;

		address = user;
		while (at > user && *at != '@')
			at--;
		colon = memchr(user, ':', at - user);
		if (*at != '@' || colon == NULL || colon + 1 == at)
			continue;
		colon[1] = '*';
		memmove(colon + 2, at, strlen(at) + 1);
	}
}

static void
mask_if_named(char *text)
{
	if (text != NULL && strcasestr(text, SETTING) != NULL)
		mask_addresses(text);
}

static void
mask_log(ErrorData *edata)
{
	mask_if_named(edata->message);
	mask_if_named(edata->detail);
	mask_if_named(edata->detail_log);
	mask_if_named(edata->context);
	mask_if_named(edata->internalquery);
	if (debug_query_string != NULL && strcasestr(debug_query_string, SETTING) != NULL)
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
