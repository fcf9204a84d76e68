/*
 * stream.c
 *	  The stream (uncache.stream) that tells others what was deleted.
 *
 * When Redis has answered for the keys of a batch the batch goes on as an entry:
 *
 *		XADD name MAXLEN ~ n * database d keys ["user:1","user:2"]
 *
 * and ends with the answer to that.  So a row is delivered when its entry is answered, and is sent
 * and announced again where the answer was lost: at least once.  No session waits for the entry
 * (settle.c).  A pass announces its patterns, as globs.  Each target has a stream of its own; in a
 * cluster it is at the node of its name's hash slot, so that node may be another than the keys'.
 * Where entries were lost with that node it is marked (resend.h), and keys that are sent again
 * and that their own nodes don't need are announced without being deleted.
 *
 * A stream that Redis does not let the worker write (another type, no right, no memory) holds up
 * nothing: the entry is counted as lost, and the delivery goes on.  last_error and once the log say
 * so, and how to mend it.
 *
 * In memory is what is under way; after a crash the rows are sent and announced again.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/fault_point.h"
#include "base/log_text.h"
#include "base/log_throttle.h"
#include "delivery/resend.h"
#include "delivery/stream.h"
#include "outbox/outbox_open.h"
#include "outbox/outbox_tables.h"
#include "redis/redis_error.h"
#include "settings/settings.h"
#include "shmem/shmem.h"
#include "template/keypattern.h"
#include "topology/cluster_map.h"

/* How often an entry follows a redirection of a cluster. */
#define MAX_HOPS		5

/* Patterns of an entry: so many, or so many bytes. */
#define PATTERN_BYTES	(64 * 1024)

/* Unconfirmed keys of which it is known that they were announced: at most 2 MB. */
#define TOLD_KEYS		16384

static MemoryContext context;
static char *setting;			/* uncache.stream as it was when the next two were made */
static char *name;				/* the same in UTF-8 */
static char *database;			/* this database's name in UTF-8 */
static StringInfoData json;		/* of the entry that is being sent */
static int	under_way = 0;

/*
 * Keys that were announced although too few replicas have their deletes.  While that lasts their
 * rows may be sent again and again, and are announced once.  NULL: none.
 */
typedef struct ToldKey
{
	const Target *target;
	uint64		xid;			/* with chunk: of the row */
	uint64		bytes_hash;
	int64		chunk;			/* no padding follows, since the whole is hashed */
} ToldKey;

static HTAB *told;

/* Patterns that wait for stream_send_patterns(). */
static struct
{
	int			n;
	size_t		bytes;
	KeyRef		refs[BATCH_KEYS];	/* bytes are copies */
}			patterns;

/*
 * --------------------------------------------------------------------------
 * Names
 * --------------------------------------------------------------------------
 */

/*
 * A copy of a name in UTF-8.  A name in postgresql.conf, or of a database, may have another
 * encoding than this database; what is UTF-8 already stays as it is, and so does what can't be
 * converted.
 */
static char *
utf8_copy(const char *text)
{
	int			len = strlen(text);
	int			room = len * MAX_CONVERSION_GROWTH + 1;
	char	   *copy = MemoryContextAllocZero(context, room);
	bool		joined;
	Oid			proc;

	strlcpy(copy, text, room);
	if (pg_encoding_verifymbstr(PG_UTF8, text, len) == len)
		return copy;
	joined = outbox_begin_reading();
	proc = FindDefaultConversionProc(GetDatabaseEncoding(), PG_UTF8);
	if (OidIsValid(proc) &&
		pg_do_encoding_conversion_buf(proc, GetDatabaseEncoding(), PG_UTF8,
									  (unsigned char *) unconstify(char *, text), len,
									  (unsigned char *) copy, room, true) != len)
		strlcpy(copy, text, room);
	outbox_end_reading(joined);
	return copy;
}

/* Announce them again, if their rows are sent again. */
static void
forget_told(void)
{
	if (told != NULL)
		hash_destroy(told);
	told = NULL;
}

static bool
is_on(void)
{
	return name[0] != '\0';
}

void
stream_init(void)
{
	MemoryContext old_context;

	Assert(context == NULL);
	context = AllocSetContextCreate(TopMemoryContext, "pg_uncache stream",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	initStringInfo(&json);
	MemoryContextSwitchTo(old_context);
	outbox_begin();
	database = get_database_name(MyDatabaseId);
	database = utf8_copy(database == NULL ? "" : database);
	outbox_end();
	stream_turn();
}

void
stream_turn(void)
{
	if (setting != NULL && strcmp(setting, setting_stream) == 0)
		return;
	if (setting != NULL)
	{
		pfree(setting);
		pfree(name);
	}
	setting = MemoryContextStrdup(context, setting_stream);
	name = utf8_copy(setting);
	forget_told();
}

const char *
stream_name(void)
{
	Assert(name != NULL);
	return name;
}

bool
stream_is_key(const char *key, size_t len)
{
	return is_on() && strlen(name) == len && memcmp(name, key, len) == 0;
}

int
stream_count_under_way(void)
{
	return under_way;
}

static RedisNode *
node_of(const Target *target)
{
	uint16		hash_slot;

	return target_node(target, name, strlen(name), &hash_slot);
}

RedisNode *
stream_node_in_need(const Target *target)
{
	RedisNode  *node = is_on() ? node_of(target) : NULL;

	return node != NULL && resend_is_needed(node) ? node : NULL;
}

/*
 * --------------------------------------------------------------------------
 * Entries
 * --------------------------------------------------------------------------
 */

/* What a JSON string can't hold as it is. */
static inline bool
is_to_be_escaped(unsigned char c)
{
	return c < 0x20 || c == '"' || c == '\\';
}

/* A byte of a JSON string takes so many at the most: \u0001. */
#define ESCAPED_BYTES	6

/* How many bytes from here on, of so many, certainly need no escape: eight at a time. */
static inline uint32
plain_bytes(const char *bytes, uint32 len)
{
	const uint64 ones = UINT64CONST(0x0101010101010101);
	const uint64 highs = ones << 7;
	uint32		plain = 0;

	for (; plain + sizeof(uint64) <= len; plain += sizeof(uint64))
	{
		uint64		word;

		/* A high bit of these is set where a byte is below 0x20, or is the one that is sought. */
		memcpy(&word, bytes + plain, sizeof(word));
		if ((((word - ones * 0x20) | ((word ^ ones * '"') - ones) |
			  ((word ^ ones * '\\') - ones)) & highs) != 0)
			break;
	}
	return plain;
}

/* Write a JSON string at "to", which has room for it; returns its end. */
static char *
write_json_string(char *to, const char *bytes, uint32 len)
{
	uint32		plain = plain_bytes(bytes, len);

	*to++ = '"';
	memcpy(to, bytes, plain);
	to += plain;
	for (uint32 i = plain; i < len; i++)
	{
		unsigned char c = bytes[i];

		if (likely(!is_to_be_escaped(c)))
			*to++ = c;
		else if (c == '"' || c == '\\')
		{
			*to++ = '\\';
			*to++ = c;
		}
		else
			to += sprintf(to, "\\u%04x", c);
	}
	*to++ = '"';
	return to;
}

/* Second deletes, and probes of what was refused, are nobody's news. */
static bool
is_named(const KeyRef *key)
{
	return key->delivery->row.table != OUTBOX_MEMORY;
}

/* Equal patterns often follow each other: a table that is truncated again and again. */
static bool
repeats(const Batch *batch, uint32 i)
{
	const KeyRef *key = &batch->keys[i];

	Assert(i < batch->nkeys);
	return batch->kind == BATCH_PATTERNS && i > 0 && key[-1].len == key->len &&
		is_named(key - 1) && memcmp(key[-1].bytes, key->bytes, key->len) == 0;
}

/* Make the array of the batch's keys.  Returns whether there are any. */
static bool
make_json(const Batch *batch)
{
	char	   *to;

	resetStringInfo(&json);
	/* Each key has two quotation marks and a comma; the array has its brackets. */
	enlargeStringInfo(&json, batch->bytes * ESCAPED_BYTES + batch->nkeys * 3 + 3);
	to = json.data;
	*to++ = '[';
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		if (!is_named(&batch->keys[i]) || repeats(batch, i))
			continue;
		if (to > json.data + 1)
			*to++ = ',';
		to = write_json_string(to, batch->keys[i].bytes, batch->keys[i].len);
	}
	*to++ = ']';
	*to = '\0';
	json.len = to - json.data;
	Assert(json.len < json.maxlen);
	return json.len > 2;
}

static void answered(void *arg, const RedisReply *reply);

/* Send an entry with what make_json() has made; "batch" is NULL where no batch waits for it. */
static bool
send_json(RedisNode *node, BatchKind kind, bool asking, Batch *batch)
{
	char		maxlen[12];
	const char *field = kind == BATCH_PATTERNS ? "patterns" : "keys";
	const char *argv[] = {
		"XADD", name, "MAXLEN", "~", maxlen, "*", "database", database, field, json.data
	};
	size_t		lens[lengthof(argv)];

	Assert(json.len > 2);
	snprintf(maxlen, sizeof(maxlen), "%d", setting_stream_maxlen);
	for (int i = 0; i < lengthof(argv) - 1; i++)
		lens[i] = strlen(argv[i]);
	lens[lengthof(argv) - 1] = json.len;
	if (node->link == NULL || (asking && !batch_send_asking(node)) ||
		!redis_send(node->link, lengthof(argv), argv, lens, answered, batch))
		return false;
	under_way++;
	batches_of(node)->no_waiter++;
	return true;
}

/* The entry was not written, or that is not known: its rows wait, and are announced again. */
static void
lose(Batch *batch, PartOutcome outcome)
{
	Assert(batch == NULL || batch->announced);
	if (batch == NULL)
	{
		forget_told();
		return;
	}
	if (is_on())
		resend_note_key(batch->target, name, strlen(name));
	batch_finish(batch, outcome);
}

static void
send_entry(RedisNode *node, Batch *batch, bool asking)
{
	Assert(batch->announced);
	if (node == NULL || !node->open)
		lose(batch, node == NULL || node->is_down ? PART_NODE_DOWN : PART_RETRY_SOON);
	else if (!make_json(batch))
		batch_finish(batch, PART_DELIVERED);
	else if (!send_json(node, batch->kind, asking, batch))
		lose(batch, PART_NO_REPLY);
}

/*
 * --------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------
 */

/* What the administrator can do; "" for an error that this does not know. */
static const char *
way_out(const RedisReply *reply)
{
	if (redis_reply_is_error(reply, "WRONGTYPE"))
		return "; rename that key, or give uncache.stream another name";
	if (redis_reply_is_error(reply, "NOPERM"))
		return "; give the Redis user the right to XADD to it";
	if (redis_reply_is_error(reply, "OOM"))
		return "; raise maxmemory, or lower uncache.stream_maxlen";
	if (redis_error_is_unknown_command(reply))
		return "; this Redis has no streams: set uncache.stream to ''";
	return "";
}

/* Whether the error is about the stream alone, though some of these are fatal for deletes. */
static bool
is_about_stream(const RedisReply *reply)
{
	const char *why;

	return way_out(reply)[0] != '\0' || !redis_error_is_fatal(reply, &why);
}

static void
note_lost_entry(RedisNode *node, const RedisReply *reply)
{
	static LogThrottle throttle;
	NodeBatches *own = batches_of(node);
	char		message[256];
	char		shown[64];

	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.stream_entries_lost, 1);
	log_text_copy(shown, sizeof(shown), name);
	snprintf(message, sizeof(message),
			 "Redis does not take entries of stream \"%s\", so they are lost: %s%s",
			 shown, log_text_cut(redis_error_text(reply), 80), way_out(reply));
	shmem_note_error(MyDatabaseState, message);
	if (own->entries_lost++ == 0 &&
		log_throttle_passes(&throttle, node->name, clock_now(), LOG_THROTTLE_MS))
		ereport(LOG,
				(errmsg("%s", message),
				 errdetail("Keys are deleted all the same, at %s. Until it takes entries again "
						   "the readers of the stream do not learn of them; "
						   "stream_entries_lost in uncache.stat counts the entries.", node->name)));
}

static void
note_written_entry(RedisNode *node)
{
	NodeBatches *own = batches_of(node);

	pg_atomic_fetch_add_u64(&MyDatabaseState->stats.stream_entries, 1);
	if (own->entries_lost == 0)
		return;
	ereport(LOG,
			(errmsg("Redis at %s takes entries of the stream again", node->name),
			 errdetail(UINT64_FORMAT " entries were lost.", own->entries_lost),
			 errhint("Have the readers of the stream forget what they keep.")));
	own->entries_lost = 0;
}

/* Returns whether the answer was a redirection; then the entry was sent on, or is lost. */
static bool
follow_cluster(RedisNode *node, Batch *batch, const RedisReply *reply)
{
	bool		asking = false;
	RedisNode  *other;

	if (!node->in_cluster || !cluster_map_is_moving(reply))
		return false;
	if (batch == NULL)
	{
		forget_told();
		return true;			/* its keys will be announced again */
	}
	other = target_redirect(node->target, reply, &asking);
	if (other == NULL || ++batch->hops > MAX_HOPS)
		lose(batch, PART_RETRY_SOON);
	else
		send_entry(other, batch, asking);
	return true;
}

static void
refused(RedisNode *node, Batch *batch, const RedisReply *reply)
{
	if (follow_cluster(node, batch, reply))
		return;
	if (is_about_stream(reply))
	{
		note_lost_entry(node, reply);
		forget_told();
		if (batch != NULL)
			batch_finish(batch, PART_DELIVERED);
		return;
	}
	node_note_trouble(node, reply);
	lose(batch, PART_NO_REPLY);
}

static void
answered(void *arg, const RedisReply *reply)
{
	Batch	   *batch = arg;
	RedisNode  *node = node_answering();

	Assert(under_way > 0 && batches_of(node)->no_waiter > 0);
	under_way--;
	batches_of(node)->no_waiter--;
	if (reply == NULL)
		lose(batch, PART_NO_REPLY);
	else if (redis_reply_type(reply) == REDIS_STRING)
	{
		FAULT_POINT("announced");
		note_written_entry(node);
		if (batch != NULL)
			batch_finish(batch, PART_DELIVERED);
	}
	else if (redis_reply_type(reply) != REDIS_ERROR)
	{
		node_note_nonsense(node);
		lose(batch, PART_NO_REPLY);
	}
	else
		refused(node, batch, reply);
}

/*
 * --------------------------------------------------------------------------
 * Announcing
 * --------------------------------------------------------------------------
 */

/*
 * Keys of an SQL_ASCII database may be no UTF-8, which JSON has to be.  They are announced as
 * patterns, with a question mark for each byte above 127.
 */
static void
append_as_pattern(Batch *to, const KeyRef *key)
{
	StringInfoData glob;
	KeyRef		pattern = {.delivery = key->delivery};
	char	   *copy;

	Assert(to->kind == BATCH_PATTERNS);
	initStringInfo(&glob);
	for (uint32 i = 0; i < key->len; i++)
	{
		if (glob_is_special(key->bytes[i]))
			appendStringInfoChar(&glob, '\\');
		appendStringInfoChar(&glob, IS_HIGHBIT_SET(key->bytes[i]) ? '?' : key->bytes[i]);
	}
	copy = batch_alloc_key(glob.len);
	pattern.bytes = memcpy(copy, glob.data, glob.len);
	pattern.len = glob.len;
	pfree(glob.data);
	batch_append(to, &pattern);
}

static bool
is_utf8(const char *bytes, uint32 len)
{
	return GetDatabaseEncoding() != PG_SQL_ASCII ||
		pg_encoding_verifymbstr(PG_UTF8, bytes, len) == (int) len;
}

/* Move such keys to a batch of patterns; NULL: there are none. */
static Batch *
split_off_bytes(Batch *batch)
{
	Batch	   *apart = NULL;
	uint32		kept = 0;

	if (batch->kind == BATCH_PATTERNS)
		return NULL;
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		const KeyRef *key = &batch->keys[i];

		if (is_utf8(key->bytes, key->len))
		{
			batch->keys[kept++] = *key;
			continue;
		}
		if (apart == NULL)
			apart = batch_new(batch->target, BATCH_PATTERNS, batch->rule, 0, true);
		append_as_pattern(apart, key);
	}
	batch->nkeys = kept;
	return apart;
}

static void
announce(Batch *batch)
{
	int			run;

	Assert(!batch->announced && !batch->unawaited);
	batch->announced = true;
	for (uint32 i = 0; i < batch->nkeys; i += run)
	{
		run = batch_run_at(batch, i);
		delivery_part_announced(batch->keys[i].delivery, run);
	}
	send_entry(node_of(batch->target), batch, false);
}

void
stream_announce(Batch *batch)
{
	Batch	   *apart;

	Assert(!batch->announced && batch->kind != BATCH_FOUND);
	if (!is_on())
	{
		batch_finish(batch, PART_DELIVERED);
		return;
	}
	for (uint32 i = 0; batch->unawaited && i < batch->nkeys; i++)
		delivery_part_awaited(batch->keys[i].delivery);
	batch->unawaited = false;
	batch->hops = 0;
	apart = split_off_bytes(batch);
	if (apart != NULL)
		announce(apart);
	announce(batch);
}

/* Counts the key as told from now on. */
static bool
was_told(const Target *target, const KeyRef *key)
{
	const OutboxRow *row = &key->delivery->row;
	ToldKey		this = {
		.target = target, .xid = row->xid, .chunk = row->chunk,
		.bytes_hash = hash_bytes_extended((const unsigned char *) key->bytes, key->len, 0),
	};
	bool		found;

	Assert(told != NULL);
	(void) hash_search(told, &this, HASH_ENTER, &found);
	return found;
}

static void
make_room_for_told(void)
{
	HASHCTL		control = {
		.keysize = sizeof(ToldKey), .entrysize = sizeof(ToldKey), .hcxt = context
	};

	if (told != NULL && hash_get_num_entries(told) + BATCH_KEYS > TOLD_KEYS)
		forget_told();
	if (told == NULL)
		told = hash_create("pg_uncache told keys", 256, &control,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
stream_note_links(void)
{
	forget_told();
}

/* An entry that no batch waits for, and that is not sent again. */
static void
announce_unawaited(RedisNode *node, Batch *batch)
{
	if (make_json(batch) && !send_json(node, batch->kind, false, NULL))
		forget_told();
	batch_drop(batch);
}

void
stream_announce_unconfirmed(const Batch *batch)
{
	RedisNode  *node = is_on() ? node_of(batch->target) : NULL;
	Batch	   *untold;
	Batch	   *apart;

	if (node == NULL || !node->open)
		return;
	make_room_for_told();
	untold = batch_new(batch->target, batch->kind, batch->rule, 0, true);
	for (uint32 i = 0; i < batch->nkeys; i++)
	{
		if (is_named(&batch->keys[i]) && !was_told(batch->target, &batch->keys[i]))
			batch_append(untold, &batch->keys[i]);
	}
	apart = split_off_bytes(untold);
	if (apart != NULL)
		announce_unawaited(node, apart);
	announce_unawaited(node, untold);
}

/* How many bytes of a glob stand for themselves, in any encoding. */
static size_t
literal_head(const char *glob, size_t len)
{
	size_t		head = 0;

	while (head < len && !IS_HIGHBIT_SET(glob[head]) && !glob_is_special(glob[head]))
		head++;
	return head;
}

/* A glob that JSON can't hold is announced by its beginning, which covers more. */
void
stream_add_pattern(Delivery *delivery, const char *glob, size_t len)
{
	KeyRef	   *ref;
	char	   *copy;

	if (!is_on())
		return;
	if (patterns.n == BATCH_KEYS || patterns.bytes >= PATTERN_BYTES)
		stream_send_patterns();
	copy = batch_alloc_key(len + 1);
	memcpy(copy, glob, len);
	if (!is_utf8(glob, len))
	{
		len = literal_head(glob, len);
		copy[len++] = '*';
	}
	Assert(patterns.n < BATCH_KEYS);
	ref = &patterns.refs[patterns.n++];
	ref->delivery = delivery;
	ref->bytes = copy;
	ref->len = len;
	patterns.bytes += len;
	for (int i = 0; i < target_count(); i++)
		delivery_part_added(delivery);
}

/* Each target's batch has its own copies; the last one gets those that are there. */
void
stream_send_patterns(void)
{
	int			ntargets = target_count();

	for (int t = 0; t < ntargets && patterns.n > 0; t++)
	{
		Batch	   *batch = batch_new(target_at(t), BATCH_PATTERNS, InvalidOid, 0, true);

		for (int i = 0; i < patterns.n; i++)
		{
			KeyRef		ref = patterns.refs[i];

			if (t < ntargets - 1)
				ref.bytes = memcpy(batch_alloc_key(ref.len), ref.bytes, ref.len);
			batch_append(batch, &ref);
		}
		stream_announce(batch);
	}
	patterns.n = 0;
	patterns.bytes = 0;
}
