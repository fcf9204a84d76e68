/*
 * keypattern_class.c
 *	  What may stand in a key where a template has an expression.
 *
 * Most classes are described by shapes, any of which may fit.  A shape is a row of
 * elements, each a character or a set of them, with "?" behind it where it may be
 * missing and "+" where it may be repeated:
 *
 *		#	a digit			!	a digit but 0		%	a lower-case hexadecimal digit
 *		|	0 or 1			&	a digit or comma	~	a sign
 *		*	any byte		any other character: itself
 *
 * Where numbers matter (ranges of integers, dates, addresses) a function finds the ends
 * of a text from its beginning.  Such texts are short, so that is a fixed amount of work
 * for each beginning.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "template/keypattern_int.h"

/* Most shapes of a class, most elements of a shape (a uuid has 36). */
#define MAX_SHAPES		10
#define MAX_ELEMENTS	40

/* Add to "to" the places where a text of the class ends that begins at "at". */
typedef void (*FindEnds) (const KeyClass *class, const char *key, size_t len,
						  size_t at, Places *to);

struct KeyClassKind
{
	const char *name;
	const char *shapes[MAX_SHAPES + 1];
	FindEnds	ends;			/* besides the shapes; or NULL */
	int			numbers;		/* behind the name; none or both of them */
	int64		low;			/* where they are not given */
	int64		high;
};

/*
 * --------------------------------------------------------------------------
 * Reading texts from their beginning
 * --------------------------------------------------------------------------
 */

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Behind this word, or 0 where something else stands there. */
static size_t
read_word(const char *key, size_t len, size_t at, const char *word)
{
	size_t		wordlen = strlen(word);

	return len - at >= wordlen && memcmp(key + at, word, wordlen) == 0 ? at + wordlen : 0;
}

/* Two digits with a value in this range; behind them, or 0. */
static size_t
read_two(const char *key, size_t len, size_t at, int low, int high)
{
	int			value;

	if (len - at < 2 || !is_digit(key[at]) || !is_digit(key[at + 1]))
		return 0;
	value = (key[at] - '0') * 10 + (key[at + 1] - '0');
	return value >= low && value <= high ? at + 2 : 0;
}

static inline char
at_or_null(const char *key, size_t len, size_t at)
{
	return at < len ? key[at] : '\0';
}

/*
 * --------------------------------------------------------------------------
 * Numbers
 * --------------------------------------------------------------------------
 */

/* A whole number without leading zeros, from class->low to class->high. */
static void
integer_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	bool		negative = at_or_null(key, len, at) == '-';
	uint64		most = negative ?
		(class->low < 0 ? (uint64) 0 - (uint64) class->low : 0) :
		(class->high > 0 ? (uint64) class->high : 0);
	uint64		value = 0;

	at += negative ? 1 : 0;
	if (at_or_null(key, len, at) == '0')
	{
		if (!negative && class->low <= 0 && class->high >= 0)
			places_add(to, at + 1);
		return;
	}
	for (; at < len && is_digit(key[at]); at++)
	{
		uint64		digit = key[at] - '0';

		if (value > (most - Min(digit, most)) / 10 || value * 10 + digit > most)
			return;
		value = value * 10 + digit;
		if (negative ? (class->high >= 0 || value >= (uint64) 0 - (uint64) class->high) :
			(class->low <= 0 || value >= (uint64) class->low))
			places_add(to, at + 1);
	}
}

/*
 * A numeric with at most class->low digits before the point, and exactly class->high
 * behind it.
 */
static void
decimal_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	size_t		start = at += at_or_null(key, len, at) == '-' ? 1 : 0;

	while (at < len && is_digit(key[at]) && at - start < class->low &&
		   !(at > start && key[start] == '0'))
	{
		at++;
		if (class->high == 0)
			places_add(to, at);
		else if (at + class->high < len && key[at] == '.')
		{
			size_t		n = 0;

			while (n < class->high && is_digit(key[at + 1 + n]))
				n++;
			if (n == class->high)
				places_add(to, at + 1 + n);
		}
	}
}

/*
 * --------------------------------------------------------------------------
 * Dates and times, in the ISO style
 * --------------------------------------------------------------------------
 */

/* A date has at least four digits of a year, and no more than seven. */
static size_t
read_date(const char *key, size_t len, size_t at)
{
	static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	size_t		start = at;
	int			month;

	while (at < len && is_digit(key[at]) && at - start < 8)
		at++;
	if (at - start < 4 || at - start > 7 || (at - start > 4 && key[start] == '0') ||
		at_or_null(key, len, at) != '-')
		return 0;
	at = read_two(key, len, at + 1, 1, 12);
	if (at == 0 || at_or_null(key, len, at) != '-')
		return 0;
	month = (key[at - 2] - '0') * 10 + (key[at - 1] - '0');
	return read_two(key, len, at + 1, 1, days[month - 1]);
}

/* Hour, minute, second; 24:00:00 is one. */
static size_t
read_time(const char *key, size_t len, size_t at)
{
	size_t		midnight = read_word(key, len, at, "24:00:00");

	if (midnight != 0)
		return midnight;
	at = read_two(key, len, at, 0, 23);
	if (at == 0 || at_or_null(key, len, at) != ':')
		return 0;
	at = read_two(key, len, at + 1, 0, 59);
	if (at == 0 || at_or_null(key, len, at) != ':')
		return 0;
	return read_two(key, len, at + 1, 0, 59);
}

/* What follows a time: ends of it are given to this. */
typedef void (*AddEnd) (const char *key, size_t len, size_t at, Places *to);

/* A fraction has up to six digits, and 0 is not the last. */
static void
time_and_then(const char *key, size_t len, size_t at, Places *to, AddEnd add)
{
	at = read_time(key, len, at);
	if (at == 0)
		return;
	add(key, len, at, to);
	if (at_or_null(key, len, at) != '.')
		return;
	for (int digits = 0; digits < 6 && is_digit(at_or_null(key, len, at + 1)); digits++)
	{
		at++;
		if (key[at] != '0')
			add(key, len, at + 1, to);
	}
}

static void
add_end(const char *key, size_t len, size_t at, Places *to)
{
	places_add(to, at);
}

static void
add_era(const char *key, size_t len, size_t at, Places *to)
{
	size_t		era = read_word(key, len, at, " BC");

	places_add(to, at);
	if (era != 0)
		places_add(to, era);
}

/* Of timestamptz: templates are rendered in UTC. */
static void
add_utc(const char *key, size_t len, size_t at, Places *to)
{
	size_t		zone = read_word(key, len, at, "+00");

	if (zone != 0)
		add_era(key, len, zone, to);
}

/* Of timetz: hours, perhaps minutes, perhaps seconds. */
static void
add_zone(const char *key, size_t len, size_t at, Places *to)
{
	char		sign = at_or_null(key, len, at);

	if (sign != '+' && sign != '-')
		return;
	at = read_two(key, len, at + 1, 0, 15);
	for (int i = 0; at != 0 && i < 3; i++)
	{
		places_add(to, at);
		if (at_or_null(key, len, at) != ':')
			return;
		at = read_two(key, len, at + 1, 0, 59);
	}
}

static void
infinity_ends(const char *key, size_t len, size_t at, Places *to)
{
	size_t		end = read_word(key, len, at + (at_or_null(key, len, at) == '-' ? 1 : 0),
								"infinity");

	if (end != 0)
		places_add(to, end);
}

static void
date_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	size_t		end = read_date(key, len, at);

	if (end != 0)
		add_era(key, len, end, to);
	else
		infinity_ends(key, len, at, to);
}

static void
time_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	time_and_then(key, len, at, to, add_end);
}

static void
timetz_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	time_and_then(key, len, at, to, add_zone);
}

static void
moment_ends(const char *key, size_t len, size_t at, Places *to, AddEnd add)
{
	size_t		date = read_date(key, len, at);

	if (date == 0)
		infinity_ends(key, len, at, to);
	else if (at_or_null(key, len, date) == ' ')
		time_and_then(key, len, date + 1, to, add);
}

static void
timestamp_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	moment_ends(key, len, at, to, add_era);
}

static void
timestamptz_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	moment_ends(key, len, at, to, add_utc);
}

/*
 * --------------------------------------------------------------------------
 * Addresses
 * --------------------------------------------------------------------------
 */

/* The longest text of an IPv6 address, without the width of its network. */
#define MAX_ADDRESS		45

/* "/" and the width of a network; its ends go to "to". */
static void
width_ends(const char *key, size_t len, size_t at, int most, Places *to)
{
	KeyClass	width = {.low = 0, .high = most};

	if (at_or_null(key, len, at) == '/')
		integer_ends(&width, key, len, at + 1, to);
}

/*
 * Any address that the C library reads, in lower case: PostgreSQL writes it in one of
 * the ways that there are.
 */
static void
address_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	char		text[MAX_ADDRESS + 1];
	bool		whole = class->high != 0;	/* a single host goes without its width */

	for (size_t n = 0; n < MAX_ADDRESS && at + n < len; n++)
	{
		char		c = key[at + n];
		struct in6_addr address;
		int			family;

		if (!is_digit(c) && !(c >= 'a' && c <= 'f') && c != ':' && c != '.')
			return;
		text[n] = c;
		text[n + 1] = '\0';
		family = memchr(text, ':', n + 1) != NULL ? AF_INET6 : AF_INET;
		if (inet_pton(family, text, &address) != 1)
			continue;
		if (whole)
			places_add(to, at + n + 1);
		width_ends(key, len, at + n + 1,
				   (family == AF_INET ? 32 : 128) - (whole ? 1 : 0), to);
	}
}

/*
 * --------------------------------------------------------------------------
 * Lists
 * --------------------------------------------------------------------------
 */

static void
list_ends(const KeyClass *class, const char *key, size_t len, size_t at, Places *to)
{
	for (const char *text = class->list; text < class->list_end; text += strlen(text) + 1)
	{
		size_t		textlen = strlen(text);

		if (textlen <= len - at && memcmp(key + at, text, textlen) == 0)
			places_add(to, at + textlen);
	}
}

/* Cut at "|"; a backslash takes its meaning from the character behind it. */
static bool
parse_list(KeyClass *class, const char *text, size_t len, char *room)
{
	class->list = room;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '|')
			*room++ = '\0';
		else if (text[i] == '\\' && i + 1 < len)
			*room++ = text[++i];
		else
			*room++ = text[i];
	}
	*room++ = '\0';
	class->list_end = room;
	return true;
}

/*
 * --------------------------------------------------------------------------
 * The classes
 * --------------------------------------------------------------------------
 */

#define NUMERIC_SHAPES	"0", "-?!#?+", "-?!#?+.#+", "-?0.#+", "-?Infinity", "NaN"

static const KeyClassKind kinds[] = {
	{"any", {NULL}},
	{"boolean", {"t", "f", NULL}},
	{"uuid", {"%%%%%%%%-%%%%-%%%%-%%%%-%%%%%%%%%%%%", NULL}},
	{"integer", {NULL}, integer_ends, 2, PG_INT64_MIN, PG_INT64_MAX},
	{"numeric", {NUMERIC_SHAPES, NULL}},
	{"decimal", {"NaN", NULL}, decimal_ends, 2, 1, 0},
	{"float", {NUMERIC_SHAPES, "-0", "-?!e~##+", "-?!.#+e~##+", NULL}},
	{"money", {"-?$#&?+.##", NULL}},
	{"date", {NULL}, date_ends},
	{"time", {NULL}, time_ends},
	{"timetz", {NULL}, timetz_ends},
	{"timestamp", {NULL}, timestamp_ends},
	{"timestamptz", {NULL}, timestamptz_ends},
	{"inet", {NULL}, address_ends, 0, 0, 1},
	{"cidr", {NULL}, address_ends, 0, 0, 0},
	{"macaddr", {"%%:%%:%%:%%:%%:%%", NULL}},
	{"macaddr8", {"%%:%%:%%:%%:%%:%%:%%:%%", NULL}},
	{"bytea", {"\\x%?+", NULL}},
	{"bits", {"|?+", NULL}},
	{"md5", {"%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%", NULL}},
	{"json", {"{*?+}", "[*?+]", "\"*?+\"", "true", "false", "null",
	"0", "-?!#?+", "-?!#?+.#+", "-?0.#+", NULL}},
	{"range", {"[*?+,*?+)", "[*?+,*?+]", "(*?+,*?+)", "(*?+,*?+]", "empty", NULL}},
	{"multirange", {"{*?+}", NULL}},
	{"row", {"(*?+)", NULL}},
};

/* A class written "{=one|other}". */
static const KeyClassKind list_kind = {"=", {NULL}, list_ends};

static bool
parse_number(const char **text, int64 *number)
{
	char	   *end;

	if (**text != ' ' || (!is_digit((*text)[1]) && (*text)[1] != '-'))
		return false;
	errno = 0;
	*number = strtoll(*text + 1, &end, 10);
	*text = end;
	return errno == 0;
}

/* A name, and numbers where the class takes any and some are given. */
static bool
parse_kind(KeyClass *class, const char *text)
{
	size_t		namelen = strcspn(text, " ");

	for (int i = 0; i < lengthof(kinds); i++)
	{
		const KeyClassKind *kind = &kinds[i];

		if (strlen(kind->name) != namelen || memcmp(kind->name, text, namelen) != 0)
			continue;
		class->kind = kind;
		class->low = kind->low;
		class->high = kind->high;
		text += namelen;
		return *text == '\0' ||
			(kind->numbers == 2 && parse_number(&text, &class->low) &&
			 parse_number(&text, &class->high) && *text == '\0');
	}
	return false;
}

bool
keypattern_class_parse(KeyClass *class, const char *text, size_t len, char *room)
{
	char		copy[80];		/* a name and two numbers */

	memset(class, 0, sizeof(*class));
	if (len > 0 && text[0] == '=')
	{
		class->kind = &list_kind;
		return parse_list(class, text + 1, len - 1, room);
	}
	if (len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (!parse_kind(class, copy))
		return false;

	/* More digits than these no numeric has: a damaged pattern. */
	return class->kind->ends != decimal_ends ||
		(class->low > 0 && class->low <= 2000 && class->high >= 0 && class->high <= 2000);
}

bool
keypattern_class_is_any(const KeyClass *class)
{
	return class->kind == &kinds[0];
}

/*
 * --------------------------------------------------------------------------
 * Shapes
 * --------------------------------------------------------------------------
 */

static bool
element_has(char element, char c)
{
	switch (element)
	{
		case '#':
			return is_digit(c);
		case '!':
			return c >= '1' && c <= '9';
		case '%':
			return is_digit(c) || (c >= 'a' && c <= 'f');
		case '|':
			return c == '0' || c == '1';
		case '&':
			return is_digit(c) || c == ',';
		case '~':
			return c == '+' || c == '-';
		case '*':
			return true;
		default:
			return c == element;
	}
}

/* A shape taken apart: bit i of a mask stands for the element i. */
typedef struct Shape
{
	char		element[MAX_ELEMENTS];
	int			nelements;
	uint64		optional;
	uint64		repeated;
} Shape;

static void
read_shape(Shape *shape, const char *text)
{
	memset(shape, 0, sizeof(*shape));
	for (; *text; text++)
	{
		if (*text == '?')
			shape->optional |= UINT64CONST(1) << (shape->nelements - 1);
		else if (*text == '+')
			shape->repeated |= UINT64CONST(1) << (shape->nelements - 1);
		else
			shape->element[shape->nelements++] = *text;
	}
	Assert(shape->nelements < MAX_ELEMENTS);
}

/* Bit i of "at": element i may come next.  Add what lies behind optional ones. */
static uint64
skip_optional(const Shape *shape, uint64 at)
{
	uint64		more = (at & shape->optional) << 1;

	while ((more & ~at) != 0)
	{
		at |= more;
		more = (at & shape->optional) << 1;
	}
	return at;
}

static void
step_shape(const Shape *shape, const char *key, size_t len,
		   const Places *from, Places *to)
{
	uint64		done = UINT64CONST(1) << shape->nelements;
	uint64		at = 0;

	for (size_t k = from->first; k <= len && (at != 0 || k <= from->last); k++)
	{
		uint64		next = 0;

		if (places_has(from, k))
			at |= skip_optional(shape, 1);
		if (at & done)
			places_add(to, k);
		if (k == len)
			break;
		for (int i = 0; i < shape->nelements && at != 0; i++)
		{
			uint64		bit = UINT64CONST(1) << i;

			if ((at & bit) != 0 && element_has(shape->element[i], key[k]))
				next |= (bit << 1) | (bit & shape->repeated);
		}
		at = skip_optional(shape, next);
	}
}

void
keypattern_class_step(const KeyClass *class, const char *key, size_t len,
			  const Places *from, Places *to)
{
	const KeyClassKind *kind = class->kind;

	if (kind->ends != NULL)
	{
		for (size_t k = from->first; k <= from->last; k++)
		{
			if (places_has(from, k))
				kind->ends(class, key, len, k, to);
		}
	}
	for (int i = 0; kind->shapes[i] != NULL; i++)
	{
		Shape		shape;

		read_shape(&shape, kind->shapes[i]);
		step_shape(&shape, key, len, from, to);
	}
}
