/*
 * ddl_triggers.h
 *	  Keeping rules whole while tables, types and functions change.
 */
#ifndef UNCACHE_DDL_TRIGGERS_H
#define UNCACHE_DDL_TRIGGERS_H

#include "postgres.h"
#include "commands/event_trigger.h"
#include "fmgr.h"

/* The event that a function was called for; an ERROR if no event trigger has called it. */
extern EventTriggerData *ddl_event(FunctionCallInfo fcinfo);

#endif							/* UNCACHE_DDL_TRIGGERS_H */
