/*
 * render_settings.c
 *	  The settings under which templates are compiled and rendered.
 *
 * A type's output function, a cast or a function in a template may read settings of the
 * session.  This file lists all settings of PostgreSQL that can change a key's text, with
 * the values that they have while a key is made.  They are set inside a nest level of their
 * own.  A setting that has the right value already is only looked at, which is cheap.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "template/template.h"

static const struct
{
	int			group;
	const char *name;
	const char *value;
}			fixed_settings[] = {

	/* The documentation promises these values.  MDY is DateStyle's default order. */
	{SETTINGS_TIME, "TimeZone", "UTC"},
	{SETTINGS_TIME, "DateStyle", "ISO, MDY"},
	{SETTINGS_TIME, "IntervalStyle", "postgres"},
	{SETTINGS_FLOAT, "extra_float_digits", "1"},
	{SETTINGS_BYTEA, "bytea_output", "hex"},

	/* pg_temp last, or a session's temporary objects would hide those of pg_catalog. */
	{SETTINGS_OTHER, "search_path", "pg_catalog, pg_temp"},

	/* These are seldom set, but they change texts, too. */
	{SETTINGS_OTHER, "lc_monetary", "C"},
	{SETTINGS_OTHER, "lc_numeric", "C"},
	{SETTINGS_OTHER, "lc_time", "C"},
	{SETTINGS_OTHER, "timezone_abbreviations", "Default"},
	{SETTINGS_OTHER, "quote_all_identifiers", "off"},
	{SETTINGS_OTHER, "xmlbinary", "base64"},
	{SETTINGS_OTHER, "xmloption", "content"},
	{SETTINGS_OTHER, "array_nulls", "on"},
	{SETTINGS_OTHER, "default_text_search_config", "pg_catalog.simple"},

	/* How SQL text is read; template_parse.c relies on the first. */
	{SETTINGS_OTHER, "standard_conforming_strings", "on"},
	{SETTINGS_OTHER, "transform_null_equals", "off"},

	/* "on" is safe: the others guard client encodings, and a template is in the server's. */
	{SETTINGS_OTHER, "backslash_quote", "on"},
};

int
render_settings_begin(int mask)
{
	int			nest_level = NewGUCNestLevel();

	Assert((mask & ~SETTINGS_ALL) == 0);
	for (int i = 0; i < lengthof(fixed_settings); i++)
	{
		const char *name = fixed_settings[i].name;
		const char *value = fixed_settings[i].value;
		const char *current;

		if ((fixed_settings[i].group & mask) == 0)
			continue;

		/* NULL: this major of PostgreSQL does not have the setting. */
		current = GetConfigOption(name, true, false);
		if (current != NULL && strcmp(current, value) != 0)
			(void) set_config_option(name, value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	return nest_level;
}

void
render_settings_end(int nest_level)
{
	Assert(nest_level > 0);
	AtEOXact_GUC(true, nest_level);
}
