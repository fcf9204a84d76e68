/*
 * fence_command.c
 *	  Commands that name keys: how the functions of uncache.lua, and UNLINK, are called.
 *
 * The arguments are gathered in static memory, since one command after the other is made and
 * sent at once: redis_send() copies them.  Nothing in here fails but for want of memory, and a
 * crash loses at most a command that was not sent, whose row is still in the outbox.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "fence/fence.h"
#include "fence/fence_command.h"
#include "shmem/shmem.h"
#include "topology/cluster_map.h"

/* FCALL, function, number of keys, ttl, incarnation; and a key and its xid for each key. */
#define MOST_ARGUMENTS	(5 + 2 * FENCE_COMMAND_KEYS)

static MemoryContext names_context; /* names of records; reset with each command */

/* The command under construction. */
static struct
{
	FenceCommand command;
	int			n;				/* arguments so far */
	int			nkeys;
	const char *argv[MOST_ARGUMENTS];
	size_t		lens[MOST_ARGUMENTS];
	char		xids[FENCE_COMMAND_KEYS][26];
	char		number[12];		/* nkeys as text */
}			building;

void
fence_command_init(void)
{
	Assert(names_context == NULL);
	names_context = AllocSetContextCreate(TopMemoryContext, "pg_uncache record names",
										  ALLOCSET_SMALL_SIZES);
}

static void
add_argument(const char *bytes, size_t len)
{
	Assert(building.n < MOST_ARGUMENTS);
	building.argv[building.n] = bytes;
	building.lens[building.n++] = len;
}

static void
add_text(const char *text)
{
	add_argument(text, strlen(text));
}

static bool
is_call(FenceCommand command)
{
	return command == COMMAND_INVALIDATE || command == COMMAND_RELEASE;
}

void
fence_command_begin(FenceCommand command)
{
	MemoryContextReset(names_context);
	building.command = command;
	building.n = 0;
	building.nkeys = 0;
	if (!is_call(command))
	{
		add_text("UNLINK");
		return;
	}
	add_text("FCALL");
	add_text(command == COMMAND_RELEASE ? "uncache_release" : "uncache_invalidate");
	add_text("");				/* the number of keys, which is not known yet */
}

/* The name of a key's record, as record_name() of uncache.lua; NULL: it can't have any. */
static char *
record_name(const char *key, size_t keylen, size_t *len)
{
	bool		tagged = memchr(key, '}', keylen) != NULL;
	MemoryContext old = MemoryContextSwitchTo(names_context);
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfoString(&name, tagged ? "uncache::" : "uncache:{");
	appendBinaryStringInfo(&name, key, keylen);
	if (!tagged)
		appendStringInfoChar(&name, '}');
	MemoryContextSwitchTo(old);
	*len = name.len;
	return cluster_map_slot(name.data, name.len) == cluster_map_slot(key, keylen) ?
		name.data : NULL;
}

void
fence_command_add(const char *key, size_t len, const char *mark, uint64 xid)
{
	Assert(building.nkeys < FENCE_COMMAND_KEYS);
	if (building.command == COMMAND_UNLINK_RECORDS)
	{
		key = record_name(key, len, &len);
		if (key == NULL)
			return;
	}
	if (is_call(building.command))
		snprintf(building.xids[building.nkeys], sizeof(building.xids[0]), "%s" UINT64_FORMAT,
				 mark, xid);
	add_argument(key, len);
	building.nkeys++;
}

int
fence_command_keys(void)
{
	return building.nkeys;
}

/* What comes behind the keys. */
static void
finish_call(void)
{
	Assert(is_call(building.command) && building.n == 3 + building.nkeys);
	snprintf(building.number, sizeof(building.number), "%d", building.nkeys);
	building.argv[2] = building.number;
	building.lens[2] = strlen(building.number);
	if (building.command == COMMAND_INVALIDATE)
		add_text(fence_ttl_text());
	add_text(UncacheShmem->incarnation);
	for (int i = 0; i < building.nkeys; i++)
		add_text(building.xids[i]);
}

bool
fence_command_send(RedisNode *node, RedisAnswer answer, void *arg)
{
	Assert(building.nkeys > 0 || building.command == COMMAND_UNLINK_RECORDS);
	if (building.nkeys == 0)
		return false;
	if (is_call(building.command))
		finish_call();
	return node->link != NULL &&
		redis_send(node->link, building.n, building.argv, building.lens, answer, arg);
}
