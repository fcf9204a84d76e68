/*
 * keypattern_test.c
 *	  Key patterns and globs: what they match, and that they agree with the C
 *	  library's regular expressions and fnmatch() on random input.
 */
#include "postgres.h"

#include <fnmatch.h>
#include <regex.h>

#include "base/invalidation.h"
#include "template/keypattern.h"
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
	{"u:{integer}", "u:0", true},
	{"u:{integer}", "u:-0", false},
	{"u:{integer}", "u:007", false},
	{"u:{integer}", "u:9223372036854775807", true},
	{"u:{integer}", "u:9223372036854775808", false},
	{"u:{integer}", "u:-9223372036854775808", true},
	{"u:{integer}", "u:-9223372036854775809", false},
	{"u:{integer}", "u:99999999999999999999", false},
	{"u:{integer -32768 32767}", "u:32767", true},
	{"u:{integer -32768 32767}", "u:32768", false},
	{"u:{integer -32768 32767}", "u:-32768", true},
	{"u:{integer -32768 32767}", "u:-32769", false},
	{"u:{integer 0 4294967295}", "u:4294967295", true},
	{"u:{integer 0 4294967295}", "u:4294967296", false},
	{"u:{integer 0 4294967295}", "u:-1", false},
	{"u:{integer -9 9}", "u:42", false},
	{"u:{integer -9 9}", "u:-9", true},
	{"u:{integer -9 9}{any}", "u:42", true},
	{"u:{integer 5 20}", "u:4", false},
	{"u:{integer 5 20}", "u:17", true},
	{"u:{integer -20 -5}", "u:-4", false},
	{"u:{integer -20 -5}", "u:-17", true},
	{"u:{integer -20 -5}", "u:7", false},
	{"n:{numeric}", "n:-12.50", true},
	{"n:{numeric}", "n:0.001", true},
	{"n:{numeric}", "n:0", true},
	{"n:{numeric}", "n:00", false},
	{"n:{numeric}", "n:01.5", false},
	{"n:{numeric}", "n:1e+20", false},
	{"n:{float}", "n:1e+20", true},
	{"n:{float}", "n:1.5e-07", true},
	{"n:{float}", "n:5e-324", true},
	{"n:{float}", "n:-0", true},
	{"n:{float}", "n:1e5", false},
	{"n:{numeric}", "n:-Infinity", true},
	{"n:{numeric}", "n:NaN", true},
	{"n:{numeric}", "n:.5", false},
	{"n:{numeric}", "n:1.", false},
	{"n:{float}", "n:1e", false},
	{"n:{decimal 8 2}", "n:10.50", true},
	{"n:{decimal 8 2}", "n:-0.50", true},
	{"n:{decimal 8 2}", "n:NaN", true},
	{"n:{decimal 8 2}", "n:10.5", false},
	{"n:{decimal 8 2}", "n:10.505", false},
	{"n:{decimal 8 2}", "n:10", false},
	{"n:{decimal 8 2}", "n:010.50", false},
	{"n:{decimal 3 2}", "n:1000.00", false},
	{"n:{decimal 3 0}", "n:999", true},
	{"n:{decimal 3 0}", "n:999.", false},
	{"n:{decimal 3 0}", "n:1000", false},
	{"m:{money}", "m:$1,234.56", true},
	{"m:{money}", "m:-$0.05", true},
	{"m:{money}", "m:1234.56", false},
	{"d:{date}", "d:2024-02-29", true},
	{"d:{date}", "d:2024-02-30", false},
	{"d:{date}", "d:2024-04-31", false},
	{"d:{date}", "d:2024-00-01", false},
	{"d:{date}", "d:2024-13-01", false},
	{"d:{date}", "d:0044-03-15 BC", true},
	{"d:{date}", "d:5874897-12-31", true},
	{"d:{date}", "d:02024-12-31", false},
	{"d:{date}", "d:12345678-12-31", false},
	{"d:{date}", "d:-infinity", true},
	{"d:{date}", "d:infinity", true},
	{"d:{date}", "d:", false},
	{"d:{date}", "d:today", false},
	{"d:{date}", "d:2024-02-29 00:00:00", false},
	{"d:{date}", "d:1", false},
	{"d:{date}:x", "d:2024-02-29:x", true},
	{"t:{time}", "t:23:59:59.000001", true},
	{"t:{time}", "t:24:00:00", true},
	{"t:{time}", "t:24:00:01", false},
	{"t:{time}", "t:12:60:00", false},
	{"t:{time}", "t:12:30", false},
	{"t:{time}", "t:12:30:00.50", false},
	{"t:{time}", "t:12:30:00.1234567", false},
	{"t:{timetz}", "t:12:30:00.5-11:30", true},
	{"t:{timetz}", "t:12:30:00+02", true},
	{"t:{timetz}", "t:12:30:00", false},
	{"t:{timetz}", "t:12:30:00-00:00:07", true},
	{"t:{timestamp}", "t:2024-03-31 00:30:00.25", true},
	{"t:{timestamp}", "t:2024-03-31 00:30:00.25 BC", true},
	{"t:{timestamp}", "t:2024-03-31 00:30:00+00", false},
	{"t:{timestamp}", "t:infinity", true},
	{"t:{timestamp}", "t:settings", false},
	{"t:{timestamptz}", "t:2024-03-31 00:30:00.25+00", true},
	{"t:{timestamptz}", "t:2024-03-31 00:30:00+00 BC", true},
	{"t:{timestamptz}", "t:2024-03-31 00:30:00+02", false},
	{"t:{timestamptz}", "t:2024-03-31T00:30:00Z", false},
	{"i:{inet}", "i:10.0.0.1", true},
	{"i:{inet}", "i:10.0.0.1/24", true},
	{"i:{inet}", "i:10.0.0.1/32", false},
	{"i:{inet}", "i:10.0.0.256", false},
	{"i:{inet}", "i:::1", true},
	{"i:{inet}", "i:2001:db8::ff00:42:8329/64", true},
	{"i:{inet}", "i:2001:DB8::1", false},
	{"i:{inet}", "i:settings", false},
	{"i:{inet}", "i:dead", false},
	{"i:{inet}:x", "i:::ffff:1.2.3.4:x", true},
	{"i:{cidr}", "i:10.0.0.0/8", true},
	{"i:{cidr}", "i:10.0.0.1/32", true},
	{"i:{cidr}", "i:10.0.0.0", false},
	{"i:{cidr}", "i:10.0.0.0/33", false},
	{"i:{cidr}", "i:2001:db8::/32", true},
	{"i:{macaddr}", "i:08:00:2b:01:02:03", true},
	{"i:{macaddr}", "i:08-00-2b-01-02-03", false},
	{"i:{macaddr8}", "i:08:00:2b:01:02:03:04:05", true},
	{"b:{bytea}", "b:\\xdead", true},
	{"b:{bytea}", "b:\\x", true},
	{"b:{bytea}", "b:dead", false},
	{"b:{bits}", "b:0101", true},
	{"b:{bits}", "b:2", false},
	{"h:{md5}", "h:d41d8cd98f00b204e9800998ecf8427e", true},
	{"h:{md5}", "h:settings", false},
	{"j:{json}", "j:{}", true},
	{"j:{json}", "j:\"settings\"", true},
	{"j:{json}", "j:[1, 2]", true},
	{"j:{json}", "j:null", true},
	{"j:{json}", "j:settings", false},
	{"r:{range}", "r:[1,10)", true},
	{"r:{range}", "r:empty", true},
	{"r:{range}", "r:(,)", true},
	{"r:{range}", "r:settings", false},
	{"r:{multirange}", "r:{[1,3),[5,7)}", true},
	{"r:{row}", "r:(1,x)", true},
	{"e:{=open|in progress|closed}", "e:in progress", true},
	{"e:{=open|in progress|closed}", "e:settings", false},
	{"e:{=open|opened}:x", "e:opened:x", true},
	{"e:{=a\\|b|c\\}d|\\\\}:{integer}", "e:a|b:1", true},
	{"e:{=a\\|b|c\\}d|\\\\}:{integer}", "e:c}d:1", true},
	{"e:{=a\\|b|c\\}d|\\\\}:{integer}", "e:\\:1", true},
	{"e:{=a\\|b|c\\}d|\\\\}:{integer}", "e:a:1", false},
	{"e:{=|x}", "e:", true},
	{"{=a|b}{=a|b}", "ab", true},
	{"{=a|b}{=a|b}", "a", false},
	{"a:{any}b", "a:b", true},
	{"a:{any}bb", "a:b", false},
	{"a:{any}bb{any}b", "a:bbb", true},
	{"a:{any}bb{any}b", "a:bb", false},
	{"a:{any}b{integer}{any}b", "a:bxb1b", true},
	{"a:{any}b{integer}{any}b", "a:bxbxb", false},
	{"", "", true},
	{"", "x", false},
};

static const char *const malformed[] = {
	"{", "}", "a{", "a}", "{}", "{nosuch}", "{integer", "{integer}}", "{{}", "a{b{c}}",
	"{integer 1}", "{integer 1 2 3}", "{integer 1 99999999999999999999}", "{integer  1 2}",
	"{integer 1 2 }", "{uuid 1 2}", "{decimal 0 1}", "{decimal 1 -1}", "{decimal 1 99999}",
	"{=a", "{=a\\}", "{=a\\"
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
						   keypattern_match_glob(keypattern_glob(pattern),
												 strlen(keypattern_glob(pattern)),
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
		ok(keypattern_match_glob(globs[i].pattern, strlen(globs[i].pattern),
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
		{"{integer}", "(0|-?[1-9][0-9]*)"}, {"{any}", ".*"}, {"{boolean}", "(t|f)"},
		{"{float}", "(-?(0|[1-9][0-9]*)([.][0-9]+)?|-?[1-9]([.][0-9]+)?e[-+][0-9][0-9]+)"},
		{"{integer -11 20}", "(0|[1-9]|1[0-9]|20|-[1-9]|-1[01])"},
		{"{decimal 2 1}", "(-?(0|[1-9][0-9]?)[.][0-9])"}, {"{=a|1e|{\\}}", "(a|1e|[{][}])"},
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
		char		expression[1024];
		char		key[16];
		regex_t		regex;
		KeyPattern *pattern;

		random_pattern(&seed, text, expression);
		pattern = keypattern_parse(text, strlen(text));
		regcomp(&regex, expression, REG_EXTENDED | REG_NOSUB);
		for (int k = 0; k < 100; k++)
		{
			bool		expected;

			random_key(&seed, "a0112-{}.etf+", key);
			expected = regexec(&regex, key, 0, NULL, 0) == 0;
			taken += expected;
			if (keypattern_matches(pattern, key, strlen(key)) != expected && wrong++ < 5)
				printf("# %s \"%s\": expected %d\n", text, key, expected);
		}
		regfree(&regex);
		keypattern_free(pattern);
	}
	ok(wrong == 0 && taken > 1000, "200000 random keys match as with regular expressions (%d do)",
	   taken);
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
		if (keypattern_match_glob(glob, strlen(glob), key, strlen(key)) != expected && wrong++ < 5)
			printf("# %s \"%s\": expected %d\n", glob, key, expected);
	}
	ok(wrong == 0 && taken > 1000, "200000 random globs match as with fnmatch (%d do)", taken);
}

/* Patterns and keys that take a backtracking matcher for ever. */
static void
test_bad_cases(void)
{
	static char key[INVALIDATION_MAX_BYTES + 1];
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
	ok(!keypattern_matches(pattern, key, INVALIDATION_MAX_BYTES), "a bad case is decided");
	ok(!keypattern_match_glob(glob, strlen(glob), key, 2000), "so is a bad glob");
	key[INVALIDATION_MAX_BYTES - 1] = 'y';
	ok(keypattern_matches(pattern, key, INVALIDATION_MAX_BYTES), "the longest key can match");
	ok(!keypattern_matches(pattern, key, INVALIDATION_MAX_BYTES + 1),
	   "a longer one is none of a rule");
	keypattern_free(pattern);
}

/*
 * 860 texts between literals, of which the last is not there: what looks for each literal
 * at every place looks at 860 times as many bytes as the key has, once for each key.
 */
static void
test_many_texts(void)
{
	static char key[INVALIDATION_MAX_BYTES];
	static char text[860 * 6 + 16] = "page:";
	KeyPattern *pattern;
	int			taken = 0;

	for (int i = 0; i < 860; i++)
		strcat(text, "{any}:");
	strcat(text, "end");
	pattern = keypattern_parse(text, strlen(text));
	memcpy(key, "page:", 5);
	memset(key + 5, ':', sizeof(key) - 8);
	memcpy(key + sizeof(key) - 3, "end", 3);
	for (int i = 0; i < 200; i++)
		taken += keypattern_matches(pattern, key, sizeof(key));
	ok(taken == 200, "a template of many texts takes a long key");
	key[sizeof(key) - 1] = 'D';
	ok(!keypattern_matches(pattern, key, sizeof(key)), "... and leaves another one");
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
	test_many_texts();
	return done_testing();
}
