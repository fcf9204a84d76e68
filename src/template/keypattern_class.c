/*
 * keypattern_class.c
 *	  The classes of key patterns: which texts can stand in a key for an expression.
 *
 * Most classes are lists of shapes; a text of the class has one of them.  A shape is a
 * sequence of elements, each a character or a set of characters.  "?" behind an element says
 * that it may be missing, "+" that it may be repeated:
 *
 *		#	a digit			!	a digit but 0		%	a lower-case hexadecimal digit
 *		|	0 or 1			&	a digit or comma	~	a sign
 *		*	any byte		any other character: itself
 *
 * Classes in which numbers matter (ranges of integers, dates, addresses) have a function
 * that finds the possible ends of a text from its beginning.  Such texts are short, so each
 * call does a bounded amount of work.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "template/keypattern_int.h"

/* Most shapes of a class (json has 10), most elements of a shape (a uuid has 36). */
#define MAX_SHAPES		10
#define MAX_ELEMENTS	40

/* Add to "to" the positions where a text of the class that begins at "at" can end. */
typedef void (*FindEnds) (const KeyClass *class, const char *key, size_t len,
						  size_t at, Positions *to);

struct KeyClassKind
{
	const char *name;
	const char *shapes[MAX_SHAPES + 1];
	FindEnds	ends;			/* finds further texts; or NULL */
	int			numbers;		/* 2: two numbers may follow the name; else 0 */
	int64		low;			/* KeyClass.low and high if none follow */
	int64		high;
};

/*
 * --------------------------------------------------------------------------
 * Reading a text from its beginning: each read_ function returns the position behind what
 * it has read, or 0 if something else stands there
 * --------------------------------------------------------------------------
 */

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t
read_word(const char *key, size_t len, size_t at, const char *word)
{
	size_t		wordlen = strlen(word);

	Assert(at <= len);
	return len - at >= wordlen && memcmp(key + at, word, wordlen) == 0 ? at + wordlen : 0;
}

/* Two digits with a value in this range. */
static size_t
read_two(const char *key, size_t len, size_t at, int low, int high)
{
	int			value;

	Assert(at <= len);
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
integer_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
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
			positions_add(to, at + 1);
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
			positions_add(to, at + 1);
	}
}

/*
 * A numeric with at most class->low digits before the point, and exactly class->high
 * behind it.
 */
static void
decimal_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	size_t		start = at += at_or_null(key, len, at) == '-' ? 1 : 0;

	while (at < len && is_digit(key[at]) && at - start < class->low &&
		   !(at > start && key[start] == '0'))
	{
		at++;
		if (class->high == 0)
			positions_add(to, at);
		else if (at + class->high < len && key[at] == '.')
		{
			size_t		n = 0;

			while (n < class->high && is_digit(key[at + 1 + n]))
				n++;
			if (n == class->high)
				positions_add(to, at + 1 + n);
		}
	}
}

/*
 * --------------------------------------------------------------------------
 * Dates and times, in the ISO style
 * --------------------------------------------------------------------------
 */

/* A date; its year has four to seven digits. */
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
	Assert(at >= start + 7);	/* a year, a dash and the month */
	month = (key[at - 2] - '0') * 10 + (key[at - 1] - '0');
	return read_two(key, len, at + 1, 1, days[month - 1]);
}

/* Hour, minute and second; 24:00:00 is a time, too. */
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

/* Add the possible ends of a text whose time ends at "at". */
typedef void (*AddEnd) (const char *key, size_t len, size_t at, Positions *to);

/* A time, with a fraction of up to six digits whose last one is not 0; and what follows it. */
static void
time_and_then(const char *key, size_t len, size_t at, Positions *to, AddEnd add)
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
add_end(const char *key, size_t len, size_t at, Positions *to)
{
	positions_add(to, at);
}

/* Of date and timestamp: an era may follow. */
static void
add_era(const char *key, size_t len, size_t at, Positions *to)
{
	size_t		era = read_word(key, len, at, " BC");

	positions_add(to, at);
	if (era != 0)
		positions_add(to, era);
}

/* Of timestamptz: the zone is UTC, in which templates are rendered; an era may follow. */
static void
add_utc(const char *key, size_t len, size_t at, Positions *to)
{
	size_t		zone = read_word(key, len, at, "+00");

	if (zone != 0)
		add_era(key, len, zone, to);
}

/* Of timetz: the zone's hours, which minutes and seconds may follow. */
static void
add_zone(const char *key, size_t len, size_t at, Positions *to)
{
	char		sign = at_or_null(key, len, at);

	if (sign != '+' && sign != '-')
		return;
	at = read_two(key, len, at + 1, 0, 15);
	for (int i = 0; at != 0 && i < 3; i++)
	{
		positions_add(to, at);
		if (at_or_null(key, len, at) != ':')
			return;
		at = read_two(key, len, at + 1, 0, 59);
	}
}

static void
infinity_ends(const char *key, size_t len, size_t at, Positions *to)
{
	size_t		end = read_word(key, len, at + (at_or_null(key, len, at) == '-' ? 1 : 0),
								"infinity");

	if (end != 0)
		positions_add(to, end);
}

static void
date_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	size_t		end = read_date(key, len, at);

	if (end != 0)
		add_era(key, len, end, to);
	else
		infinity_ends(key, len, at, to);
}

static void
time_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	time_and_then(key, len, at, to, add_end);
}

static void
timetz_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	time_and_then(key, len, at, to, add_zone);
}

/* A date and a time, or an infinity. */
static void
moment_ends(const char *key, size_t len, size_t at, Positions *to, AddEnd add)
{
	size_t		date = read_date(key, len, at);

	if (date == 0)
		infinity_ends(key, len, at, to);
	else if (at_or_null(key, len, date) == ' ')
		time_and_then(key, len, date + 1, to, add);
}

static void
timestamp_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	moment_ends(key, len, at, to, add_era);
}

static void
timestamptz_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
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

/* "/" and the width of a network. */
static void
width_ends(const char *key, size_t len, size_t at, int most, Positions *to)
{
	KeyClass	width = {.low = 0, .high = most};

	if (at_or_null(key, len, at) == '/')
		integer_ends(&width, key, len, at + 1, to);
}

/*
 * An address in lower case that inet_pton() accepts.  This may be more than PostgreSQL
 * writes, which has one of the possible texts for each address.
 */
static void
address_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	char		text[MAX_ADDRESS + 1];
	bool		whole = class->high != 0;	/* of inet: a single host has no width */

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
			positions_add(to, at + n + 1);
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
list_ends(const KeyClass *class, const char *key, size_t len, size_t at, Positions *to)
{
	for (const char *text = class->list; text < class->list_end; text += strlen(text) + 1)
	{
		size_t		textlen = strlen(text);

		if (textlen <= len - at && memcmp(key + at, text, textlen) == 0)
			positions_add(to, at + textlen);
	}
}

/* Cut at "|"; a character behind a backslash stands for itself. */
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
	Assert(class->list_end - class->list <= len + 1);
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

/* A name, behind which two numbers may stand if the class has any. */
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

	/* No numeric has more digits than these, so the pattern is damaged. */
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

/* A parsed shape: bit i of a mask stands for element i. */
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

/*
 * In a state of the match, bit i says that element i may come next, and the bit behind the
 * last element that the text may end here.  Add the elements behind optional ones.
 */
static uint64
skip_optional(const Shape *shape, uint64 at)
{
	uint64		more = (at & shape->optional) << 1;

	Assert((at >> shape->nelements) <= 1);
	while ((more & ~at) != 0)
	{
		at |= more;
		more = (at & shape->optional) << 1;
	}
	return at;
}

/* keypattern_class_step() for one shape. */
static void
step_shape(const Shape *shape, const char *key, size_t len,
		   const Positions *from, Positions *to)
{
	uint64		done = UINT64CONST(1) << shape->nelements;
	uint64		at = 0;

	for (size_t k = from->first; k <= len && (at != 0 || k <= from->last); k++)
	{
		uint64		next = 0;

		if (positions_has(from, k))
			at |= skip_optional(shape, 1);
		if (at & done)
			positions_add(to, k);
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
					  const Positions *from, Positions *to)
{
	const KeyClassKind *kind = class->kind;

	if (kind->ends != NULL)
	{
		for (size_t k = from->first; k <= from->last; k++)
		{
			if (positions_has(from, k))
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
