/*
 * question.h
 *	  What a session asks the worker about Redis, and gets an answer to.
 *
 * The worker alone has links to Redis, with the address and the password of the server.  A
 * session writes its question into the DatabaseState, draws a ticket (wait_ticket.c), and
 * the worker writes the answer there.  A long answer takes several tickets.  One session asks
 * at a time; the next waits for a heavyweight lock.
 */
#ifndef UNCACHE_QUESTION_H
#define UNCACHE_QUESTION_H

#include "postgres.h"
#include "lib/stringinfo.h"

#include "shmem/database_state.h"

/*
 * Ask, and wait for the whole answer, which is appended to "answer".  "what" is the function's
 * name, for errors.  ERROR where the library is not preloaded, on a standby, and where no
 * worker has answered in time.
 */
extern void question_ask(const char *what, QuestionKind kind, const char *question, size_t len,
						 StringInfo answer);

/*
 * The question of QUESTION_CHECK: for each key pattern of the rules two null-terminated
 * texts, the pattern as it is to be shown, and a key that it covers.  The answer: for each
 * check three null-terminated texts: its name; "t", "f", or "" for unknown; the detail.  No
 * more patterns than CHECK_MOST_PATTERNS are looked at.
 *
 * The question of QUESTION_AUDIT: the number of keys that are wanted, an int32.  The answer:
 * an AuditSummary; then for each key an AuditedKey and its bytes.
 */
typedef struct AuditSummary
{
	uint32		nodes;			/* of Redis; a cluster of which none is known counts as one */
	uint32		answered;		/* of these, whether all has come or a part */
	uint32		complete;		/* of these, those whose part of the sample is whole */
} AuditSummary;

typedef struct AuditedKey
{
	uint32		len;			/* of the bytes that follow */
	bool		whole;			/* false: the beginning of a key that is too long */
	char		ttl;			/* 't': it has one; 'f': none; '?': Redis does not say */
} AuditedKey;

/* Rules of an application share prefixes, so this is enough to see what an ACL forbids. */
#define CHECK_MOST_PATTERNS	20

/* Of a longer key this much is told; no rule makes keys of more. */
#define AUDIT_KEY_BYTES	(16 * 1024)

/* Most keys of one question. */
#define AUDIT_MOST_KEYS	100000

#endif							/* UNCACHE_QUESTION_H */
