/*
 * size_limit.c
 *	  How many bytes of keys a row, and a transaction, may record.
 *
 * Beyond a limit the user's statement fails, before the commit.  The pending set holds the
 * last key by then, and the rollback of the statement removes it.  The worker's own
 * transactions have no limit (worker.c), since their keys must not be lost.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "rules/rule_catalog.h"
#include "rules/size_limit.h"

/* The errdetail.  There is no rule for keys of invalidate_keys(), or if it was dropped. */
static const char *
describe(Oid rule)
{
	RuleInfo   *info = OidIsValid(rule) ? rule_by_trigger(rule) : NULL;
	char	   *table = info ? get_rel_name(info->relation) : NULL;

	if (table == NULL)
		return "Keys that no rule has made are too many.";
	return psprintf("Rule \"%s\" of table \"%s\" makes too many or too long keys.",
					info->name, table);
}

void
size_limit_raise_row(Oid rule)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the keys of a row have more than %d kB", setting_max_row_size),
			 errdetail("%s", describe(rule)),
			 errhint("Raise uncache.max_row_size, or change the row with uncache.enabled = off and "
					 "run uncache.invalidate_table() for its table afterwards.")));
}

void
size_limit_raise_transaction(Oid rule)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the keys of the transaction have more than %d kB",
					setting_max_transaction_size),
			 errdetail("%s", describe(rule)),
			 errhint("Divide the transaction, raise uncache.max_transaction_size, or run it with "
					 "uncache.enabled = off and uncache.invalidate_table() for its tables "
					 "afterwards.")));
}
