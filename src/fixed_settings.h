/*
 * fixed_settings.h
 *	  The settings under which templates are compiled and rendered, so that no
 *	  session can change a key's text.
 */
#ifndef UNCACHE_FIXED_SETTINGS_H
#define UNCACHE_FIXED_SETTINGS_H

/*
 * Fix the settings; returns what fixed_settings_end() wants.  Where an ERROR
 * comes between, the end of the (sub)transaction puts them back.
 */
extern int	fixed_settings_begin(void);
extern void fixed_settings_end(int nest_level);

#endif							/* UNCACHE_FIXED_SETTINGS_H */
