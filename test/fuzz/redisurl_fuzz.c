/*
 * redisurl_fuzz.c
 *	  Any text as uncache.redis_url.
 */
#include "postgres.h"

#include "redis/redis_url.h"

int			LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

/* What was taken must keep its promises. */
static void
check_target(const RedisTarget *target)
{
	char		public[512];

	if (target->nhosts < 1 || target->nhosts > REDIS_MAX_HOSTS ||
		target->db < 0 || target->db > 16383)
		abort();
	for (int i = 0; i < target->nhosts; i++)
	{
		if (target->hosts[i].name[0] == '\0' ||
			(target->hosts[i].port == 0) != (target->scheme == REDIS_UNIX) ||
			target->hosts[i].port < 0 || target->hosts[i].port > 65535)
			abort();
	}
	redis_url_public(target, public, sizeof(public));
	for (const char *p = public; *p; p++)
	{
		if ((unsigned char) *p < 0x20)
			abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *url = malloc(size + 1);
	const char *error = NULL;
	RedisTarget *target;

	memcpy(url, data, size);
	url[size] = '\0';
	target = redis_url_parse(url, &error);
	if ((target == NULL) != (error != NULL))
		abort();
	if (target != NULL)
		check_target(target);
	redis_url_free(target);
	free(url);
	return 0;
}
