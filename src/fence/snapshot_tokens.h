/*
 * snapshot_tokens.h
 *	  Tokens that the client has sent together with the running statement.
 */
#ifndef UNCACHE_SNAPSHOT_TOKENS_H
#define UNCACHE_SNAPSHOT_TOKENS_H

#include "postgres.h"
#include "utils/portal.h"

/* Longer than any token is; so the search for them is linear. */
#define TOKEN_MAX	128

/* Whether the text has the shape of a token: letters, digits, dots, a colon, digits. */
extern bool snapshot_tokens_is_token(const char *text);

/* Whether the portal runs the statement that the client has sent, and nothing within it. */
extern bool snapshot_tokens_is_of_client(Portal portal);

/*
 * Whether the token stands in the text of the portal's statement or in one of its
 * parameters.  The portal is of the client.
 */
extern bool snapshot_tokens_has(Portal portal, const char *token);

#endif							/* UNCACHE_SNAPSHOT_TOKENS_H */
