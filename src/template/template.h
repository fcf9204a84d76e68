/*
 * template.h
 *	  Templates: text that names a cache key in terms of a row's columns.
 *
 * A template takes three steps: template_parse.c cuts the text into literals and
 * expressions, template_compile.c binds the expressions to a table, and
 * template_render.c makes keys of a row.  Those files share template_int.h; all other
 * folders include this header only.
 */
#ifndef UNCACHE_TEMPLATE_H
#define UNCACHE_TEMPLATE_H

#include "postgres.h"
#include "access/attnum.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

/* A row that gives more keys than this is an ERROR: such an array is a mistake. */
#define TEMPLATE_MAX_KEYS	10000

/*
 * A longer template is an ERROR.  The limit is the longest key, since a key is seldom
 * shorter than its template.
 */
#define TEMPLATE_MAX_BYTES	(64 * 1024)

struct Segment;

/* A template bound to a table.  Only template_compile() and template_inspect() write it. */
typedef struct Template
{
	char	   *text;
	char	   *relation;		/* the table, for messages */

	/* The columns that it reads; ncolumns is -1 if it reads the whole row. */
	int			ncolumns;
	AttrNumber *columns;

	bool		constant;		/* reads no column at all */
	int			settings;		/* SETTINGS_*: fix these while rendering */
	bool		runs_code;		/* rendering may call functions that users wrote */
	bool		queries;		/* may read tables, so it needs a new snapshot */

	/* Only template_*.c uses the rest. */
	bool		simple;			/* values go straight into the key; nothing is evaluated */
	int			nsegments;
	int			segments_room;
	struct Segment *segments;
} Template;

/*
 * Receiver of keys.  emit() must copy the key, whose buffer is used again when it returns,
 * and must not render, which would overwrite that buffer.
 */
typedef struct KeySink KeySink;
struct KeySink
{
	void		(*emit) (KeySink *sink, const char *key, size_t len);
	int			nkeys;			/* of this row; counted by template_render() */
};

/*
 * Compile a template for the rows of a table, which the caller has opened and locked.
 * "alias" is the name by which expressions may refer to the table; NULL is the table's own
 * name.  The result is in CurrentMemoryContext.  Raises an ERROR that names template,
 * position and table.
 */
extern Template *template_compile(const char *text, Relation rel, const char *alias);

/*
 * The same without running code that users wrote, so it is safe with any rights.  The
 * result can do everything but render.  Errors that only evaluation finds are not found:
 * a missing right on a function, a division by zero, a wrong literal of a type that
 * contains a domain.
 */
extern Template *template_inspect(const char *text, Relation rel, const char *alias);

/*
 * Render a row: give its keys to sink->emit(), with the prefix, in UTF-8, in the order of
 * the arrays' elements.  Values stay in CurrentMemoryContext until the caller resets it.
 * The caller has fixed template->settings (render_settings_begin()).  Raises an ERROR if a
 * key is too long or the keys are too many, and the errors of the expressions.
 */
extern void template_render(Template *template, TupleTableSlot *slot, KeySink *sink);

/*
 * The key pattern (keypattern.h) of all keys that the template can give, palloc'd.  NULL
 * if the template does not begin with literal text that holds two letters or digits: a
 * glob without such a head could match the keys of other applications.  The prefix does not
 * count, since all rules have it and the setting may change.
 */
extern char *template_keypattern(const Template *template);

/* The same for any template, to check a key that is already known. */
extern char *template_full_keypattern(const Template *template);

/* A template's text for a message: only its beginning if it is long. */
extern const char *template_shown(const char *text);

/*
 * Settings of the session that can change a key's text (render_settings.c), in groups.
 * A mask of these says on which of them a template depends.
 */
#define SETTINGS_NONE	0
#define SETTINGS_TIME	0x01	/* text of dates, times and intervals */
#define SETTINGS_FLOAT	0x02	/* text of floating-point numbers */
#define SETTINGS_BYTEA	0x04	/* text of bytea */
#define SETTINGS_OTHER	0x08	/* everything else */
#define SETTINGS_ALL	0x0F

/*
 * Fix the settings of a mask until render_settings_end(), which takes the result.  After an
 * ERROR in between, the end of the (sub)transaction restores the session's own values.
 */
extern int	render_settings_begin(int mask);
extern void render_settings_end(int nest_level);

/* True if the table has a column of exactly this name that is not a system column. */
extern bool column_hint_exists(Relation rel, const char *name);

/*
 * For ereport(): a hint that names the column whose name is most similar to "name".  If none
 * is similar, the hint is "otherwise", and there is none if that is NULL.  "in_sql": the name
 * stands in an SQL expression, so the hint says if it must be quoted.
 */
extern int	column_hint(Relation rel, const char *name, bool in_sql, const char *otherwise);

#endif							/* UNCACHE_TEMPLATE_H */
