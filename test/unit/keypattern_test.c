/*
 * keypattern_test.c
 *	  Key patterns and globs: what they match, and that they agree with the C
 *	  library's regular expressions and fnmatch() on random input.
 */
#include "postgres.h"

#include <fnmatch.h>
#include <regex.h>

#include "item.h"
#include "keypattern.h"
#include "tap.h"

typedef struct Match
{
	const char *pattern;
	const char *key;
	bool		matches;
} Match;

static const Match matches[] = {
	{"user:{integer}", "user:42", true},
	{"user:{integer}", "user:-42", true},
	{"user:{integer}", "user:", false},
	{"user:{integer}", "user:-", false},
	{"user:{integer}", "user:settings", false},
	{"user:{integer}", "user:42:session", false},
	{"user:{integer}", "user:42 ", false},
	{"user:{integer}", "auser:42", false},
	{"user:{any}", "user:", true},
	{"user:{any}", "user:42:session", true},
	{"user:{any}", "user", false},
	{"u:{any}:{integer}", "u:a:1:b:2", true},
	{"u:{any}:{integer}", "u:a:1:b:2x", false},
	{"u:{integer}{integer}", "u:1", false},
	{"u:{integer}{integer}", "u:12", true},
	{"u:{integer}{integer}", "u:1-2", true},
	{"u:{integer}{integer}", "u:--12", false},
	{"a{{{integer}}}", "a{7}", true},
	{"a{{{integer}}}", "a7", false},
	{"a{{b}}", "a{b}", true},
	{"id:{uuid}", "id:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", true},
	{"id:{uuid}", "id:A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11", false},
	{"id:{uuid}", "id:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", false},
	{"id:{uuid}", "id:a0eebc999c0b4ef8bb6d6bb9bd380a11", false},
	{"f:{boolean}", "f:t", true},
	{"f:{boolean}", "f:f", true},
	{"f:{boolean}", "f:true", false},
	{"n:{number}", "n:-12.50", true},
	{"n:{number}", "n:1e+20", true},
	{"n:{number}", "n:1.5e-07", true},
	{"n:{number}", "n:-Infinity", true},
	{"n:{number}", "n:NaN", true},
	{"n:{number}", "n:.5", false},
	{"n:{number}", "n:1.", false},
	{"n:{number}", "n:1e", false},
	{"d:{time}", "d:2024-02-29", true},
	{"d:{time}", "d:2024-03-31 00:30:00.25+00", true},
	{"d:{time}", "d:0044-03-15 BC", true},
	{"d:{time}", "d:-infinity", true},
	{"d:{time}", "d:", false},
	{"d:{time}", "d:today", false},
	{"", "", true},
	{"", "x", false},
};

static const char *const malformed[] = {
	"{", "}", "a{", "a}", "{}", "{nosuch}", "{integer", "{integer}}", "{{}", "a{b{c}}"
};

static const Match globs[] = {
	{"*", "", true},
	{"*", "anything", true},
	{"", "", true},
	{"", "x", false},
	{"a*b*c", "aXbYbZc", true},
	{"a*b*c", "aXbYbZ", false},
	{"a?c", "abc", true},
	{"a?c", "ac", false},
	{"a[b-d]e", "ace", true},
	{"a[d-b]e", "ace", true},
	{"a[^b]e", "abe", false},
	{"a[^b]e", "ace", true},
	{"a[\\]]e", "a]e", true},
	{"a[bc", "ab", true},
	{"a\\*", "a*", true},
	{"a\\*", "ab", false},
	{"a\\", "a\\", true},
	{"**a**", "bab", true},
};

static void
test_matches(void)
{
	for (int i = 0; i < lengthof(matches); i++)
	{
		const Match *m = &matches[i];
		KeyPattern *pattern = keypattern_parse(m->pattern, strlen(m->pattern));

		ok(pattern != NULL &&
		   keypattern_matches(pattern, m->key, strlen(m->key)) == m->matches,
		   "%s %s \"%s\"", m->pattern, m->matches ? "takes" : "leaves", m->key);
		ok(!m->matches || (pattern != NULL &&
						   glob_matches(keypattern_glob(pattern), strlen(keypattern_glob(pattern)),
										m->key, strlen(m->key))),
		   "... and its glob finds what it takes");
		keypattern_free(pattern);
	}
	for (int i = 0; i < lengthof(malformed); i++)
		ok(keypattern_parse(malformed[i], strlen(malformed[i])) == NULL,
		   "%s is malformed", malformed[i]);
	ok(keypattern_parse("a\0b", 3) == NULL, "a null byte is malformed");
}

static void
test_globs(void)
{
	for (int i = 0; i < lengthof(globs); i++)
		ok(glob_matches(globs[i].pattern, strlen(globs[i].pattern),
						globs[i].key, strlen(globs[i].key)) == globs[i].matches,
		   "glob %s %s \"%s\"", globs[i].pattern,
		   globs[i].matches ? "takes" : "leaves", globs[i].key);
}

static void
test_heads(void)
{
	KeyPattern *pattern = keypattern_parse("a[b]*{{{integer}", 16);
	KeyPattern *glob = keypattern_from_glob("a\\*b[cd]*", 9);
	size_t		len;

	is(keypattern_glob(pattern), "a\\[b\\]\\*{*", "literals are escaped in a glob");
	ok(strncmp(keypattern_literal_head(pattern, &len), "a[b]*{", 6) == 0 && len == 6,
	   "the head of a pattern is unescaped");
	ok(strncmp(keypattern_literal_head(glob, &len), "a*b", 3) == 0 && len == 3,
	   "so is that of a glob");
	ok(keypattern_matches(glob, "a*bcd", 5) && !keypattern_matches(glob, "axbc", 4),
	   "a glob matches as a pattern");
	keypattern_free(pattern);
	keypattern_free(glob);
}

/* A key pattern out of "parts", and the regular expression that means the same. */
static void
random_pattern(unsigned int *seed, char *pattern, char *regex)
{
	static const char *const parts[][2] = {
		{"a", "a"}, {"1", "1"}, {"-", "-"}, {"{{", "[{]"}, {".", "[.]"}, {"e", "e"},
		{"{integer}", "-?[0-9]+"}, {"{any}", ".*"}, {"{boolean}", "(t|f)"},
		{"{number}", "(-?[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?|-?Infinity|NaN)"},
	};
	int			count = rand_r(seed) % 5;

	strcpy(pattern, "");
	strcpy(regex, "^");
	for (int i = 0; i <= count; i++)
	{
		int			part = rand_r(seed) % lengthof(parts);

		strcat(pattern, parts[part][0]);
		strcat(regex, parts[part][1]);
	}
	strcat(regex, "$");
}

static void
random_key(unsigned int *seed, const char *letters, char *key)
{
	int			len = rand_r(seed) % 9;

	for (int i = 0; i < len; i++)
		key[i] = letters[rand_r(seed) % strlen(letters)];
	key[len] = '\0';
}

static void
test_random_patterns(void)
{
	unsigned int seed = 1;
	int			taken = 0;
	int			wrong = 0;

	for (int i = 0; i < 2000; i++)
	{
		char		text[256];
		char		expression[512];
		char		key[16];
		regex_t		regex;
		KeyPattern *pattern;

		random_pattern(&seed, text, expression);
		pattern = keypattern_parse(text, strlen(text));
		regcomp(&regex, expression, REG_EXTENDED | REG_NOSUB);
		for (int k = 0; k < 100; k++)
		{
			bool		expected;

			random_key(&seed, "a112-{.etf+", key);
			expected = regexec(&regex, key, 0, NULL, 0) == 0;
			taken += expected;
			if (keypattern_matches(pattern, key, strlen(key)) != expected && wrong++ < 5)
				printf("# %s \"%s\": expected %d\n", text, key, expected);
		}
		regfree(&regex);
		keypattern_free(pattern);
	}
	ok(wrong == 0 && taken > 1000, "200000 random keys match as with regular expressions (%d do)", taken);
}

static void
test_random_globs(void)
{
	unsigned int seed = 2;
	int			taken = 0;
	int			wrong = 0;

	for (int i = 0; i < 200000; i++)
	{
		char		glob[16];
		char		key[16];
		bool		expected;

		random_key(&seed, "ab**?", glob);
		random_key(&seed, "ab", key);
		expected = fnmatch(glob, key, 0) == 0;
		taken += expected;
		if (glob_matches(glob, strlen(glob), key, strlen(key)) != expected && wrong++ < 5)
			printf("# %s \"%s\": expected %d\n", glob, key, expected);
	}
	ok(wrong == 0 && taken > 1000, "200000 random globs match as with fnmatch (%d do)", taken);
}

/* Patterns and keys that take a backtracking matcher for ever. */
static void
test_bad_cases(void)
{
	static char key[ITEM_MAX_BYTES + 1];
	char		text[512] = "x";
	char		glob[512] = "x";
	KeyPattern *pattern;

	for (int i = 0; i < 40; i++)
	{
		strcat(text, "{any}1");
		strcat(glob, "*1");
	}
	strcat(text, "y");
	strcat(glob, "y");
	memset(key, '1', sizeof(key));
	key[0] = 'x';
	pattern = keypattern_parse(text, strlen(text));
	ok(!keypattern_matches(pattern, key, ITEM_MAX_BYTES), "a bad case is decided");
	ok(!glob_matches(glob, strlen(glob), key, 2000), "so is a bad glob");
	key[ITEM_MAX_BYTES - 1] = 'y';
	ok(keypattern_matches(pattern, key, ITEM_MAX_BYTES), "the longest key can match");
	ok(!keypattern_matches(pattern, key, ITEM_MAX_BYTES + 1), "a longer one is none of a rule");
	keypattern_free(pattern);
}

int
main(void)
{
	test_matches();
	test_globs();
	test_heads();
	test_random_patterns();
	test_random_globs();
	test_bad_cases();
	return done_testing();
}
