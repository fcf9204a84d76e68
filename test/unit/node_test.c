/*
 * node_test.c
 *	  Which nodes a turn looks at: all of them, or only those that were touched.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/log_text.h"
#include "redis/redis_error.h"
#include "topology/topology_int.h"

#include "tap.h"

#define NODES	1000

/*
 * What node.c calls of the server and of other files, and what this test does not come to.
 */
MemoryContext TopMemoryContext = NULL;
DatabaseState *MyDatabaseState = NULL;

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size minContextSize,
							  Size initBlockSize, Size maxBlockSize)
{
	return NULL;
}

/* Freed by nobody, like all that ends with this program. */
void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	static char memory[16 * 1024 * 1024];
	static size_t used = 0;
	void	   *taken = memory + used;

	used += MAXALIGN(size);
	if (used > sizeof(memory))
		abort();
	return taken;
}

void
MemoryContextDelete(MemoryContext context)
{
}

bool
errstart(int elevel, const char *domain)
{
	return false;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
}

int
errmsg(const char *fmt,...)
{
	return 0;
}

void
shmem_note_error(DatabaseState *database, const char *error)
{
}

const char *
log_text_cut(const char *text, Size most)
{
	return text;
}

bool
redis_error_is_fatal(const RedisReply *reply, const char **why)
{
	return false;
}

const char *
redis_error_text(const RedisReply *reply)
{
	return "";
}

bool
redis_reply_is_error(const RedisReply *reply, const char *code)
{
	return false;
}

/* ------------------------------------------------------------------------
 * The test
 * ------------------------------------------------------------------------
 */
static RedisNode *nodes[NODES];
static char visited[256];
static int	visits;

static int
number_of(const RedisNode *node)
{
	int			i = 0;

	while (i < NODES && nodes[i] != node)
		i++;
	return i;
}

/* Node 3 touches node 4 while it is visited, as an answer does that sends a batch on. */
static void
visit(RedisNode *node, void *arg)
{
	int			number = number_of(node);
	size_t		used = strlen(visited);

	visits++;
	if (used < sizeof(visited) - 8)
		snprintf(visited + used, sizeof(visited) - used, "%d ", number);
	if (number == 3)
		node_touch(nodes[4]);
}

/* The turn's nodes; only their number where they are all. */
static const char *
visit_all(void)
{
	visits = 0;
	visited[0] = '\0';
	node_for_turn(visit, NULL);
	if (visits == node_count())
		return "all";
	return visited;
}

/* As worker_wait.c does between two turns; "touched": a node with something to read, or -1. */
static void
next_turn(bool full, int touched)
{
	node_forget_touched();
	if (touched >= 0)
		node_touch(nodes[touched]);
	node_begin_turn(full);
}

int
main(void)
{
	nodes[0] = node_make(true);
	next_turn(false, -1);
	next_turn(false, -1);
	is(visit_all(), "all", "where there is one node every turn looks at it");

	for (int i = 1; i < NODES; i++)
		nodes[i] = node_make(true);
	next_turn(false, 7);
	is(visit_all(), "all", "a turn after nodes were made looks at all of them");
	ok(!node_next_turn_is_full(), "... and the next one does not");

	next_turn(false, -1);
	is(visit_all(), "", "a turn in which nothing happens looks at no node");
	node_touch(nodes[9]);
	node_touch(nodes[5]);
	node_touch(nodes[9]);
	is(visit_all(), "9 5 ", "... and at those that it touches, each once");
	next_turn(false, 3);
	is(visit_all(), "3 4 ", "a node that is touched while another one is looked at has its turn");
	next_turn(true, 3);
	is(visit_all(), "all", "a full turn looks at all");
	next_turn(false, 6);
	is(visit_all(), "6 ", "... and the one after it does not");

	node_turn_fully();
	is(visit_all(), "all", "a change makes the rest of the turn full");
	next_turn(false, -1);
	is(visit_all(), "all", "... and the next one");
	next_turn(false, -1);
	is(visit_all(), "", "... and no other");

	node_touch(nodes[8]);
	node_touch(nodes[2]);
	node_remove(nodes[8]);
	next_turn(false, -1);
	is(visit_all(), "all", "a turn after a node has gone looks at all that are left");
	next_turn(false, 1);
	node_touch(nodes[2]);
	node_remove(nodes[1]);
	next_turn(false, -1);
	next_turn(false, 2);
	is(visit_all(), "2 ", "a node that has gone is touched no more");
	return done_testing();
}
