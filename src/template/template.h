/*
 * template.h
 *	  Templates: text that names a cache key in terms of a row's columns.
 *
 * A template goes through three hands: template_parse.c cuts the text into
 * literals and expressions, template_compile.c binds the expressions to a table,
 * template_render.c makes keys of a row.  They share template_int.h; everybody
 * else knows what is here.
 */
#ifndef UNCACHE_TEMPLATE_H
#define UNCACHE_TEMPLATE_H

#include "postgres.h"
#include "access/attnum.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

/* More keys than this from one row is an ERROR: some array is not what it seems. */
#define TEMPLATE_MAX_KEYS	10000

/*
 * A longer template is an ERROR.  As long as a key may be: what gives no more text than
 * it has itself could never be used if it were longer.
 */
#define TEMPLATE_MAX_BYTES	(64 * 1024)

struct Segment;

/* A template bound to a table.  Others read it, template_compile() writes it. */
typedef struct Template
{
	char	   *text;
	char	   *relation;		/* the table, for messages */

	/* The columns that it reads; ncolumns < 0 stands for the whole row. */
	int			ncolumns;
	AttrNumber *columns;

	bool		constant;		/* reads no column at all */
	int			settings;		/* render with these fixed (render_settings.h) */
	bool		runs_code;		/* rendering may call functions that users wrote */
	bool		queries;		/* may look at tables: wants a new snapshot */

	/* The rest belongs to template_*.c. */
	bool		simple;			/* every value can go straight into the key */
	int			nsegments;
	int			segments_room;
	struct Segment *segments;
} Template;

/* Where keys go.  The key is gone when emit returns; emit must not render. */
typedef struct KeySink KeySink;
struct KeySink
{
	void		(*emit) (KeySink *sink, const char *key, size_t len);
	int			nkeys;			/* of this row; the renderer counts */
};

/*
 * Compile a template for the rows of a table, which the caller has open.
 * "alias" is the name under which expressions may refer to the table, NULL for
 * its own.  Everything is made in CurrentMemoryContext.  Raises an ERROR that
 * names template, position and table.
 */
extern Template *template_compile(const char *text, Relation rel, const char *alias);

/*
 * The same without running anything of the template, with whatever rights it is
 * called, for everything but rendering.  What only evaluating would bring to light
 * stays in the dark: rights on functions, a division by zero, a literal of a type
 * that a domain is part of.
 */
extern Template *template_inspect(const char *text, Relation rel, const char *alias);

/*
 * Render a row.  Keys come with the prefix, in UTF-8, in the order of the
 * arrays' elements.  What is evaluated is left in CurrentMemoryContext, which is
 * a short-lived one.  Raises an ERROR for a key or a number of keys beyond the
 * limits, and whatever the expressions raise.
 */
extern void template_render(Template *template, TupleTableSlot *slot, KeySink *sink);

/*
 * The key pattern of all keys that the template can give, as keypattern.h has
 * it, palloc'd; NULL where the template does not begin with literal text that
 * holds two letters or digits.  (The prefix does not count for that: it is the
 * same for all rules, and the setting may change.)
 */
extern char *template_keypattern(const Template *template);

/* The same, also where the keys could not be found by it: to check a key at hand. */
extern char *template_full_keypattern(const Template *template);

/* The text of a template as a message shows it: its beginning, where it is long. */
extern const char *template_shown(const char *text);

/* Which of them something depends on; a mask. */
#define SETTINGS_NONE	0
#define SETTINGS_TIME	0x01	/* text of dates, times and intervals */
#define SETTINGS_FLOAT	0x02	/* text of floating-point numbers */
#define SETTINGS_BYTEA	0x04	/* text of bytea */
#define SETTINGS_OTHER	0x08	/* everything else */
#define SETTINGS_ALL	0x0F

/*
 * Fix these settings; returns what render_settings_end() wants.  Where an ERROR
 * comes between, the end of the (sub)transaction puts them back.
 */
extern int	render_settings_begin(int mask);
extern void render_settings_end(int nest_level);

/* Whether a table has a column of exactly this name; not a system column. */
extern bool column_hint_exists(Relation rel, const char *name);

/*
 * For ereport(): a hint at the column whose name is most like this one; where there
 * is none such "otherwise", or no hint if that is NULL.  "in_sql": the name stands in
 * an SQL expression, where some have to be quoted.
 */
extern int	column_hint(Relation rel, const char *name, bool in_sql, const char *otherwise);

#endif							/* UNCACHE_TEMPLATE_H */
