/*
 * fixed_settings.c
 *	  The settings under which templates are compiled and rendered.
 *
 * A type's output function, a cast or a function in a template may depend on the
 * session: here is everything in PostgreSQL that such a dependence goes through.
 * Only what differs is set, inside a nest level of its own, so that a session
 * whose settings are these already pays for looking only.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "fixed_settings.h"

static const struct
{
	const char *name;
	const char *value;
}			fixed_settings[] = {
	/* Documented: the text of a value. */
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},

	/* Temporary objects last, or a session could put its own before the rest. */
	{"search_path", "pg_catalog, pg_temp"},

	/* Seldom used, but they change texts all the same. */
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"timezone_abbreviations", "Default"},
	{"quote_all_identifiers", "off"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"array_nulls", "on"},

	/* How an expression is read; template_parse.c relies on the first. */
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
};

int
fixed_settings_begin(void)
{
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(fixed_settings); i++)
	{
		const char *name = fixed_settings[i].name;
		const char *value = fixed_settings[i].value;
		const char *current = GetConfigOption(name, true, false);

		/* A major may not have all of them. */
		if (current != NULL && strcmp(current, value) != 0)
			(void) set_config_option(name, value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	return nest_level;
}

void
fixed_settings_end(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}
