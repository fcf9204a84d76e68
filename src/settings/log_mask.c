/*
 * log_mask.c
 *	  Keeps the password in uncache.redis_url out of the server log.
 *
 * pg_uncache does not log the address with its password; PostgreSQL does.  It
 * logs a setting that a reload has changed, with the new value, and it logs
 * statements (log_statement, a statement that failed), ALTER SYSTEM among them.
 * So in every message on its way to the log "*" replaces the password of an address of
 * Redis, whatever the message is about: a message that shows a statement's parameters
 * has the address without the setting's name.
 *
 * The password is taken to reach to the last "@" before a quotation mark, the end of
 * the line or a blank with another address behind it.  That is more than an address
 * allows: an address whose password has a blank or an "@" that was not encoded is refused,
 * but that password must not be logged either.  Where there is no "@" before the quotation
 * mark, the mark may be a part of the password; then the password may reach to the last "@"
 * of the line.
 *
 * Time: no interrupt can be served in here, since an error is being reported.  So all of
 * it is linear in the text: each byte is looked at a fixed number of times.
 *
 * PostgreSQL logs a failing statement apart from the message, from memory that this file
 * must not change; where the statement may hold a password, the log goes without it.
 *
 * Limits: only the log.  A client that gets its own statement back, or the
 * extension pg_stat_statements, has the statement as it was written.
 */
#include "postgres.h"

#include "tcop/tcopprot.h"
#include "utils/elog.h"

#include "settings/settings.h"

#define SETTING		"uncache.redis_url"

static emit_log_hook_type next_hook = NULL;

static const char *const schemes[] = {
	"redis", "rediss", "unix",
	"redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
};

#define SEPARATOR	"://"
#define QUOTES		"'\""
#define BLANKS		" \t\f\v"
#define LINE_ENDS	"\r\n"

/* A text that is searched for passwords, from its beginning to its end. */
typedef struct Search
{
	const char *text;
	const char *next;			/* the text before it has been looked at */
	const char *barren;			/* no "@" between next and here */
	bool		named;			/* the text names the setting: any address may be of Redis */
} Search;

/* Whether the scheme of an address of Redis ends right before "end". */
static bool
scheme_ends(const char *text, const char *end)
{
	for (int i = 0; i < lengthof(schemes); i++)
	{
		size_t		len = strlen(schemes[i]);

		if (end - text >= len && pg_strncasecmp(end - len, schemes[i], len) == 0)
			return true;
	}
	return false;
}

static bool
address_begins(const char *text)
{
	for (int i = 0; i < lengthof(schemes); i++)
	{
		size_t		len = strlen(schemes[i]);

		if (pg_strncasecmp(text, schemes[i], len) == 0 &&
			strncmp(text + len, SEPARATOR, strlen(SEPARATOR)) == 0)
			return true;
	}
	return false;
}

/* Where an address ends at the latest; *at is the last "@" before that, or NULL. */
static const char *
address_end(const char *address, const char **at)
{
	const char *p = address;

	*at = NULL;
	for (;;)
	{
		p += strcspn(p, "@" QUOTES BLANKS LINE_ENDS);
		if (*p == '@')
			*at = p;
		else if (*p == '\0' || strchr(QUOTES LINE_ENDS, *p) != NULL || address_begins(p + 1))
			return p;
		p++;
	}
}

/* Whether the text is a port, and maybe what follows one, rather than a password. */
static bool
is_port(const char *text, const char *end)
{
	size_t		digits = strspn(text, "0123456789");

	return digits > 0 && (text + digits == end || strchr("/,?" BLANKS, text[digits]) != NULL);
}

/* The last "@" of the line, for a password with a quotation mark in it; or NULL. */
static const char *
last_at_of_line(Search *search, const char *from)
{
	const char *end;
	const char *at = NULL;

	if (from < search->barren)
		return NULL;
	end = from + strcspn(from, LINE_ENDS);
	for (const char *p = from; p < end && (p = memchr(p, '@', end - p)) != NULL; p++)
		at = p;
	Assert(at == NULL || (at >= from && at < end));
	if (at == NULL)
		search->barren = end;
	return at;
}

/* Find the next password: it begins at *from and ends before *to. */
static bool
find_password(Search *search, const char **from, const char **to)
{
	const char *separator;

	while ((separator = strstr(search->next, SEPARATOR)) != NULL)
	{
		const char *user = separator + strlen(SEPARATOR);
		const char *end;
		const char *at;
		const char *colon;

		search->next = user;
		if (!search->named && !scheme_ends(search->text, separator))
			continue;
		end = address_end(user, &at);
		colon = memchr(user, ':', (at ? at : end) - user);
		if (at == NULL && colon != NULL && !is_port(colon + 1, end))
			at = last_at_of_line(search, end);
		Assert(at == NULL || at >= user);
		search->next = Max(end, at);
		if (colon != NULL && at != NULL && colon + 1 < at)
		{
			*from = colon + 1;
			*to = at;
			return true;
		}
	}
	return false;
}

static Search
begin_search(const char *text)
{
	Search		search = {text, text, text, strcasestr(text, SETTING) != NULL};

	return search;
}

/* Replace all passwords in the text; it does not get longer. */
static void
mask_passwords(char *text)
{
	Search		search;
	const char *rest = text;
	char	   *to = text;
	const char *from;
	const char *at;

	if (text == NULL)
		return;
	search = begin_search(text);
	while (find_password(&search, &from, &at))
	{
		Assert(rest <= from && from < at);
		memmove(to, rest, from - rest);
		to += from - rest;
		*to++ = '*';
		rest = at;
	}
	if (rest != text)
		memmove(to, rest, strlen(rest) + 1);
}

static bool
has_secret(const char *text)
{
	Search		search;
	const char *from;
	const char *at;

	if (text == NULL)
		return false;
	search = begin_search(text);
	return search.named || find_password(&search, &from, &at);
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
log_mask_init(void)
{
	Assert(emit_log_hook != mask_log);
	next_hook = emit_log_hook;
	emit_log_hook = mask_log;
}
