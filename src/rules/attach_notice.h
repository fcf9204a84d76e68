/*
 * attach_notice.h
 *	  What uncache.attach() tells its caller.
 */
#ifndef UNCACHE_ATTACH_NOTICE_H
#define UNCACHE_ATTACH_NOTICE_H

#include "postgres.h"
#include "utils/rel.h"

#include "rules/rule_catalog.h"

/* What attach was asked for. */
typedef struct Attachment
{
	Relation	rel;
	char	   *columns;		/* name[] literal, or NULL for attach() */
	List	   *templates;		/* Template, compiled */
} Attachment;

/*
 * Tell what the new rule does, and does not.  "before" is the row rule that it
 * replaces, or NULL.  Raises what rendering an existing row raises: then the rule
 * would make changes of that row fail.
 */
extern void attach_notice(const Attachment *attachment, const RuleInfo *before);

#endif							/* UNCACHE_ATTACH_NOTICE_H */
