/*
 * subtransaction.c
 *	  Work that may raise an ERROR, without ending the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/subtransaction.h"

ErrorData *
subtransaction_run(void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	Assert(edata == NULL || edata->elevel == ERROR);
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return edata;
}

void
subtransaction_run_or_report(void (*work) (void *arg), void *arg)
{
	ErrorData  *edata = subtransaction_run(work, arg);

	if (edata == NULL)
		return;
	edata->elevel = LOG;
	ThrowErrorData(edata);
	FreeErrorData(edata);
}
