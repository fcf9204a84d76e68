/*
 * settings.h
 *	  The settings uncache.*.  Each is described where it is defined.
 */
#ifndef UNCACHE_SETTINGS_H
#define UNCACHE_SETTINGS_H

#include "postgres.h"
#include "nodes/pg_list.h"

typedef enum Consistency
{
	CONSISTENCY_EVENTUAL,
	CONSISTENCY_READ_YOUR_WRITES,
	CONSISTENCY_STRICT,
} Consistency;

typedef enum OnTruncate
{
	ON_TRUNCATE_PATTERN,
	ON_TRUNCATE_IGNORE,
	ON_TRUNCATE_ERROR,
} OnTruncate;

typedef enum AfterLostCommits
{
	AFTER_LOST_COMMITS_REDELIVER,
	AFTER_LOST_COMMITS_FLUSH,
} AfterLostCommits;

extern char *setting_redis_url;
extern char *setting_redis_password_file;
extern char *setting_redis_tls_ca_file; /* these four: empty for none */
extern char *setting_redis_tls_cert_file;
extern char *setting_redis_tls_key_file;
extern char *setting_redis_tls_server_name;
extern char *setting_key_prefix;
extern int	setting_consistency;	/* Consistency */
extern int	setting_wait_timeout;	/* ms; 0: do not wait */
extern int	setting_wait_max_keys;
extern int	setting_max_row_size;	/* kB */
extern int	setting_max_transaction_size;	/* kB */
extern bool setting_delivery;
extern int	setting_on_truncate;	/* OnTruncate */
extern int	setting_redeliver_window;	/* s */
extern int	setting_wait_replicas;	/* 0: none */
extern int	setting_wait_replicas_timeout;	/* ms */
extern int	setting_fence_ttl;	/* ms; 0: no fence */
extern int	setting_fence_takeback; /* ms; 0: never */
extern int	setting_outbox_max_size;	/* MB; 0: no limit */
extern int	setting_second_delete_delay;	/* ms; 0: off */
extern char *setting_stream;	/* empty: off */
extern int	setting_stream_maxlen;	/* entries */
extern int	setting_after_lost_commits; /* AfterLostCommits */
extern int	setting_connect_timeout;	/* ms */
extern int	setting_command_timeout;	/* ms */
extern bool setting_enabled;
extern int	setting_ring_size;	/* kB */
extern int	setting_max_database_workers;
extern char *setting_databases; /* names, see settings_database_rank() */

/*
 * The position of a database in uncache.databases, from 0 on; -1 where it is not among the
 * names, 0 where there are none.  Does not change while the server runs.
 */
extern int	settings_database_rank(const char *name);

/* The names in uncache.databases, as char *; NIL where it is empty. */
extern List *settings_database_names(void);

/* Define all of them; those that take effect only while preloading, if "preloaded". */
extern void settings_define(bool preloaded);

/* log_mask.c: from now on keep the password in uncache.redis_url out of the server log. */
extern void log_mask_init(void);

#endif							/* UNCACHE_SETTINGS_H */
