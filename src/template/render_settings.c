/*
 * render_settings.c
 *	  The settings under which templates are compiled and rendered.
 *
 * A type's output function, a cast or a function in a template may depend on the
 * session: here is everything in PostgreSQL that such a dependence goes through.
 * Only what differs is set, inside a nest level of its own, so that a session
 * whose settings are these already pays for looking only.
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
	/* Documented: the text of a value.  The order of DateStyle is its default. */
	{SETTINGS_TIME, "TimeZone", "UTC"},
	{SETTINGS_TIME, "DateStyle", "ISO, MDY"},
	{SETTINGS_TIME, "IntervalStyle", "postgres"},
	{SETTINGS_FLOAT, "extra_float_digits", "1"},
	{SETTINGS_BYTEA, "bytea_output", "hex"},

	/* Temporary objects last, or a session could put its own before the rest. */
	{SETTINGS_OTHER, "search_path", "pg_catalog, pg_temp"},

	/* Seldom used, but they change texts all the same. */
	{SETTINGS_OTHER, "lc_monetary", "C"},
	{SETTINGS_OTHER, "lc_numeric", "C"},
	{SETTINGS_OTHER, "lc_time", "C"},
	{SETTINGS_OTHER, "timezone_abbreviations", "Default"},
	{SETTINGS_OTHER, "quote_all_identifiers", "off"},
	{SETTINGS_OTHER, "xmlbinary", "base64"},
	{SETTINGS_OTHER, "xmloption", "content"},
	{SETTINGS_OTHER, "array_nulls", "on"},
	{SETTINGS_OTHER, "default_text_search_config", "pg_catalog.simple"},

	/* How an expression is read; template_parse.c relies on the first. */
	{SETTINGS_OTHER, "standard_conforming_strings", "on"},
	{SETTINGS_OTHER, "transform_null_equals", "off"},

	/* The text is in the server's encoding, whatever the client's makes of a backslash. */
	{SETTINGS_OTHER, "backslash_quote", "on"},
};

int
render_settings_begin(int mask)
{
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(fixed_settings); i++)
	{
		const char *name = fixed_settings[i].name;
		const char *value = fixed_settings[i].value;
		const char *current;

		if ((fixed_settings[i].group & mask) == 0)
			continue;

		/* A major may not have all of them. */
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
	AtEOXact_GUC(true, nest_level);
}
