/*
 * snapshot_tokens.c
 *	  Tokens that the client has sent together with the running statement.
 *
 * A token is found wherever it stands: in the statement's text, and in parameters
 * of type text, varchar, json and jsonb, arrays of these, and domains over all of
 * them.  Text and parameters are searched once for everything that has the shape of a
 * token; that goes into a hash table, in which each of ten thousand calls in one
 * statement finds its token.
 *
 * Text and parameters of a client's message have arrived before its statements take
 * their snapshots.  So the table lives as long as the message, in a child of
 * MessageContext, whose reset makes this file forget it; also when a statement fails.
 *
 * A part of something longer is no token: neither the end of a longer epoch nor the
 * beginning of a longer number is found.  In JSON a token is not found behind an
 * escape, which costs its reader a wait for the next beat.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "fence/fence_int.h"

/* Bytes; longer than any token is, so that the search for them is linear. */
#define TOKEN_MAX	128

typedef struct TokenText
{
	const char *bytes;			/* not null-terminated */
	uint32		len;
} TokenText;

typedef struct Token
{
	TokenText	text;
	uint32		hash;
	char		status;
} Token;

#define SH_PREFIX		tokens
#define SH_ELEMENT_TYPE Token
#define SH_KEY_TYPE		TokenText
#define SH_KEY			text
#define SH_HASH_KEY(table, key)		hash_bytes((const unsigned char *) (key).bytes, (key).len)
#define SH_EQUAL(table, a, b) \
	((a).len == (b).len && memcmp((a).bytes, (b).bytes, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(table, token)	((token)->hash)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Most statements have one token, and some times of day, which look alike. */
#define FIRST_TOKENS	16

/* The tokens of the client's message. */
typedef struct MessageTokens
{
	MemoryContext context;
	tokens_hash *tokens;
	const char *source;			/* the text of the statement, */
	const char *message;		/* that of debug_query_string, which it equals, */
	ParamListInfo params;		/* and the parameters that were searched */
} MessageTokens;

/* NULL: the message has not been searched yet. */
static MessageTokens *arrived = NULL;

static void
forget(void *arg)
{
	arrived = NULL;
}

/*
 * --------------------------------------------------------------------------
 * Searching
 * --------------------------------------------------------------------------
 */

static inline bool
is_epoch_char(char c)
{
	return isalnum((unsigned char) c) || c == '.';
}

/* The token around this colon; its length is 0 where there is none. */
static TokenText
token_around(const char *text, const char *colon)
{
	const char *begin = colon;
	const char *end = colon + 1;
	TokenText	token = {NULL, 0};

	Assert(*colon == ':');
	while (begin > text && colon - begin <= TOKEN_MAX && is_epoch_char(begin[-1]))
		begin--;
	while (end - begin <= TOKEN_MAX && isdigit((unsigned char) *end))
		end++;
	if (begin < colon && end > colon + 1 && end - begin <= TOKEN_MAX)
	{
		token.bytes = begin;
		token.len = end - begin;
	}
	return token;
}

bool
snapshot_tokens_is_token(const char *text)
{
	const char *colon = strchr(text, ':');
	TokenText	token;

	if (colon == NULL)
		return false;
	token = token_around(text, colon);
	return token.bytes == text && text[token.len] == '\0';
}

/* The text lives as long as the table. */
static void
search_text(MessageTokens *to, const char *text)
{
	for (const char *at = strchr(text, ':'); at != NULL; at = strchr(at + 1, ':'))
	{
		TokenText	token = token_around(text, at);
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (token.len > 0)
			(void) tokens_insert(to->tokens, token, &found);
	}
}

static bool
is_searched(Oid type)
{
	return type == TEXTOID || type == VARCHAROID || type == JSONOID || type == JSONBOID;
}

static void
search_value(MessageTokens *to, Oid type, Datum value)
{
	Assert(is_searched(type));
	if (type == JSONBOID)
	{
		Jsonb	   *jsonb = DatumGetJsonbP(value);

		search_text(to, JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
	}
	else
		search_text(to, TextDatumGetCString(value));
}

static void
search_array(MessageTokens *to, Oid element_type, Datum value)
{
	int16		len;
	bool		by_value;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	get_typlenbyvalalign(element_type, &len, &by_value, &align);
	deconstruct_array(DatumGetArrayTypeP(value), element_type, len, by_value, align,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (!nulls[i])
			search_value(to, getBaseType(element_type), elements[i]);
	}
}

static void
search_parameters(MessageTokens *to, ParamListInfo params)
{
	for (int i = 0; params != NULL && i < params->numParams; i++)
	{
		ParamExternData *param = &params->params[i];
		Oid			type;
		Oid			element_type;

		/* Parameters that are computed when asked for did not come with the message. */
		if (params->paramFetch != NULL)
			return;
		if (param->isnull || !OidIsValid(param->ptype))
			continue;
		type = getBaseType(param->ptype);
		element_type = get_element_type(type);
		if (is_searched(type))
			search_value(to, type, param->value);
		else if (OidIsValid(element_type) && is_searched(getBaseType(element_type)))
			search_array(to, element_type, param->value);
	}
}

static MessageTokens *
search(Portal portal)
{
	MemoryContext context = AllocSetContextCreate(MessageContext, "pg_uncache tokens",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	MessageTokens *found = palloc0(sizeof(MessageTokens));

	Assert(arrived == NULL && snapshot_tokens_is_of_client(portal));
	found->context = context;
	found->tokens = tokens_create(context, FIRST_TOKENS, NULL);
	found->source = portal->sourceText;
	found->message = debug_query_string;
	found->params = portal->portalParams;
	search_text(found, portal->sourceText);
	search_parameters(found, portal->portalParams);

	callback->func = forget;
	MemoryContextRegisterResetCallback(context, callback);
	MemoryContextSwitchTo(old_context);
	return found;
}

/*
 * --------------------------------------------------------------------------
 * Asking
 * --------------------------------------------------------------------------
 */

bool
snapshot_tokens_is_of_client(Portal portal)
{
	if (portal == NULL || portal->sourceText == NULL || debug_query_string == NULL)
		return false;
	if (portal->sourceText == debug_query_string)
		return true;
	/* Both texts live as long as the statement, and were compared when the tokens were searched. */
	if (arrived != NULL && arrived->source == portal->sourceText &&
		arrived->message == debug_query_string)
		return true;
	return strcmp(portal->sourceText, debug_query_string) == 0;
}

bool
snapshot_tokens_has(Portal portal, const char *token)
{
	TokenText	text = {token, strlen(token)};

	Assert(snapshot_tokens_is_of_client(portal) && snapshot_tokens_is_token(token));
	if (MessageContext == NULL)
		return false;
	if (arrived == NULL || arrived->source != portal->sourceText ||
		arrived->message != debug_query_string || arrived->params != portal->portalParams)
	{
		if (arrived != NULL)
			MemoryContextDelete(arrived->context);	/* its callback sets arrived to NULL */
		arrived = search(portal);
	}
	return tokens_lookup(arrived->tokens, text) != NULL;
}
