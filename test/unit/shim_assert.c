/*
 * shim_assert.c
 *	  What Assert() calls.  Its arguments differ between PostgreSQL's majors, so
 *	  that no header of PostgreSQL may be included here.
 */
#include <stdlib.h>

void		ExceptionalCondition(void);

void
ExceptionalCondition(void)
{
	abort();
}
