/*
 * redisurl_test.c
 *	  Addresses of Redis servers: what is taken, and what is refused.
 */
#include "postgres.h"

#include "redis/redis_url.h"
#include "tap.h"

typedef struct Accepted
{
	const char *url;
	const char *public;			/* as redis_url_public() shows it */
	const char *user;
	const char *password;
} Accepted;

static const Accepted accepted[] = {
	{"redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0", NULL, NULL},
	{"redis://cache", "redis://cache:6379/0", NULL, NULL},
	{"redis://cache/", "redis://cache:6379/0", NULL, NULL},
	{"redis://cache:65535/16383", "redis://cache:65535/16383", NULL, NULL},
	{"redis://:secret@cache", "redis://cache:6379/0", NULL, "secret"},
	{"redis://app@cache", "redis://cache:6379/0", "app", NULL},
	{"redis://app:secret@cache", "redis://cache:6379/0", "app", "secret"},
	{"redis://app:se:cret@cache", "redis://cache:6379/0", "app", "se:cret"},
	{"redis://:@cache", "redis://cache:6379/0", NULL, NULL},
	{"redis://a%40b:%2f%3F%25%c3%a9@cache:7/3", "redis://cache:7/3", "a@b", "/?%\303\251"},
	{"redis://[::1]", "redis://[::1]:6379/0", NULL, NULL},
	{"redis://:x@[2001:db8::1]:7000/1", "redis://[2001:db8::1]:7000/1", NULL, "x"},
	{"redis://[fe80::1%25eth0]:1", "redis://[fe80::1%eth0]:1/0", NULL, NULL},
	{"rediss://cache", "rediss://cache:6379/0", NULL, NULL},
	{"unix:///run/redis.sock", "unix:///run/redis.sock", NULL, NULL},
	{"unix:///run/redis.sock?db=5", "unix:///run/redis.sock?db=5", NULL, NULL},
	{"unix://app:secret@/run/a%20b%3f", "unix:///run/a b?", "app", "secret"},
	{"redis+cluster://a,b:7000,[::1]:7001",
		"redis+cluster://a:6379,b:7000,[::1]:7001/0", NULL, NULL},
	{"rediss+cluster://a,b", "rediss+cluster://a:6379,b:6379/0", NULL, NULL},
	{"redis+sentinel://a,b:5/mymaster", "redis+sentinel://a:26379,b:5/mymaster/0", NULL, NULL},
	{"redis+sentinel://:x@a/my%2Fmaster/2", "redis+sentinel://a:26379/my/master/2", NULL, "x"},
};

static const char *refused[] = {
	"", "redis", "redis:", "redis:/", "redis:/h", "http://cache", "REDIS://cache", " redis://cache",
	"redis://", "redis:///0", "redis://@", "redis://:secret@", "redis://:6379", "redis://[]",
	"redis://cache:", "redis://cache:0", "redis://cache:65536", "redis://cache:999999999999",
	"redis://cache:-1", "redis://cache:+1", "redis://cache:63 79", "redis://cache:1x",
	"redis://cache/x", "redis://cache/-1", "redis://cache/16384", "redis://cache/0/1",
	"redis://cache/0 ",
	"redis://cache?db=1", "redis://cache/0?x=y", "redis://cache#x",
	"redis://::1", "redis://::1:6379", "redis://[::1", "redis://[::1]x", "redis://[::1]:",
	"redis://[1.2.3.4]",
	"redis://[12345::1]", "redis://[::1%25]", "redis://[cache]",
	"redis://ca che", "redis://ca\tche", "redis://cache\n", "redis://ca%0ache", "redis://ca%00che",
	"redis://:sec%0d%0aret@cache", "redis://:sec%7fret@cache", "redis://:secret%@cache",
	"redis://:secret%4@cache",
	"redis://:secret%zz@cache", "redis://:sec/ret@cache", "redis://:sec@ret@cache",
	"redis://:sec?ret@cache",
	"redis://ca%2fche", "redis://c\303\251che",
	"redis://a,", "redis://,a", "redis://a,,b",
	"redis://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q",
	"unix://", "unix://run/redis.sock", "unix://cache", "unix:///run?db=", "unix:///run?db=x",
	"unix:///run?x=1",
	"unix:///run?db=1&db=2", "unix:///run#x", "unix:///run%00",
	"unix:///a23456789012345678901234567890123456789012345678901234567890"
	"1234567890123456789012345678901234567890123456789",
	"redis+sentinel://a", "redis+sentinel://a/", "redis+sentinel://a//0", "redis+sentinel://a/m/x",
	"redis+nothing://a",
};

static void
check_accepted(const Accepted *expected)
{
	const char *error = NULL;
	char		public[200];
	RedisTarget *target = redis_url_parse(expected->url, &error);

	if (!ok(target != NULL && error == NULL, "%s is taken", expected->url))
	{
		printf("# %s\n", error);
		return;
	}
	redis_url_public(target, public, sizeof(public));
	is(public, expected->public, "... and shown without secrets");
	is(target->user, expected->user, "... with its user");
	is(target->password, expected->password, "... with its password");
	redis_url_free(target);
}

static void
check_refused(const char *url)
{
	const char *error = NULL;
	RedisTarget *target = redis_url_parse(url, &error);

	ok(target == NULL && error != NULL && strstr(error, "secret") == NULL,
	   "refused: %.*s", (int) strcspn(url, "\n"), url);
	if (target != NULL)
		redis_url_free(target);
}

/* Whatever room there is, the text ends within it. */
static void
check_small_rooms(void)
{
	const char *error;
	const char *whole = "redis+sentinel://a:26379,[::1]:5/master/2";
	RedisTarget *target = redis_url_parse("redis+sentinel://x:secret@a,[::1]:5/master/2", &error);
	bool		right = true;

	for (size_t size = 1; size < 60; size++)
	{
		char		room[64];

		memset(room, '#', sizeof(room));
		redis_url_public(target, room, size);
		if (strlen(room) != Min(size - 1, strlen(whole)) ||
			strncmp(room, whole, strlen(room)) != 0 || room[size] != '#')
			right = false;
	}
	ok(right, "a public address is cut to the room there is");
	redis_url_free(target);
}

int
main(void)
{
	for (int i = 0; i < lengthof(accepted); i++)
		check_accepted(&accepted[i]);
	for (int i = 0; i < lengthof(refused); i++)
		check_refused(refused[i]);
	check_small_rooms();
	return done_testing();
}
