/*
 * log_mask.h
 *	  Keeps the password in uncache.redis_url out of the server log.
 */
#ifndef UNCACHE_SECRETS_H
#define UNCACHE_SECRETS_H

extern void log_mask_init(void);

#endif							/* UNCACHE_SECRETS_H */
