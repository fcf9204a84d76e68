/*
 * attach.h
 *	  The triggers that uncache.attach() makes.
 */
#ifndef UNCACHE_ATTACH_H
#define UNCACHE_ATTACH_H

#define ATTACH_ROW_TRIGGER		"uncache_row"
#define ATTACH_TRUNCATE_TRIGGER "uncache_truncate"

/* Whether a trigger has one of these names. */
#define is_attached_name(name) \
	(strcmp(name, ATTACH_ROW_TRIGGER) == 0 || strcmp(name, ATTACH_TRUNCATE_TRIGGER) == 0)

#endif							/* UNCACHE_ATTACH_H */
