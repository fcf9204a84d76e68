/*
 * render_settings.h
 *	  The settings under which templates are compiled and rendered, so that no
 *	  session can change a key's text.
 */
#ifndef UNCACHE_FIXED_SETTINGS_H
#define UNCACHE_FIXED_SETTINGS_H

/* Which of them something depends on; a mask. */
#define SETTINGS_NONE	0
#define SETTINGS_TIME	0x01	/* text of dates, times and intervals */
#define SETTINGS_FLOAT	0x02	/* text of floating-point numbers */
#define SETTINGS_BYTEA	0x04	/* text of bytea */
#define SETTINGS_OTHER	0x08	/* everything else */
#define SETTINGS_ALL	0x0F

/*
 * Fix these settings; returns what render_settings_end() wants.  Where an ERROR
 * comes between, the end of the (sub)transaction puts them back.
 */
extern int	render_settings_begin(int mask);
extern void render_settings_end(int nest_level);

#endif							/* UNCACHE_FIXED_SETTINGS_H */
