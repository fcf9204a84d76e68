/*
 * log_text.h
 *	  Text of others, made fit for the log and for views.
 */
#ifndef UNCACHE_LOG_TEXT_H
#define UNCACHE_LOG_TEXT_H

#include "postgres.h"

/*
 * Copy what fits into "size" bytes with the zero at the end, as text that is valid in the
 * database's encoding: it is cut behind a whole character, and a control character or a
 * byte that belongs to no character becomes "?".  Redis may say anything.
 */
extern void log_text_copy(char *to, Size size, const char *from);

/*
 * The same as a piece of a message: at most "most" bytes of the text (LOG_TEXT_MOST at the
 * most).  It lives until the next call, so a message can have one.
 */
#define LOG_TEXT_MOST	200
extern const char *log_text_cut(const char *text, Size most);

#endif							/* UNCACHE_LOG_TEXT_H */
