/*
 * resend.c
 *	  Rows that wait to be sent again: whether there are any, and until when.
 *
 * A row of which some was lost waits for its node.  When one comes back all that wait are
 * released (reconnect.c).  What could not be sent for another reason, or for the moment
 * only, has no node to wait for: then they are released after a pause, which doubles
 * with each time until it was quiet for a while.  It grows to a second, and where the outbox
 * takes long to read, to several times as long as that takes.
 *
 * Here are only the times and a flag: which rows wait is known to delivery_map.c.  To release
 * too often costs a scan, and rows that are lost once more.  A worker that begins, after a crash
 * too, has nothing waiting, since it reads the whole outbox.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/clock.h"
#include "delivery/resend.h"

/* Before what could not be sent for the moment is sent again; doubles. */
#define AGAIN_FIRST_MS		50
#define AGAIN_CHEAP_MS		1000	/* so far whatever a scan takes; or so many times that long: */
#define AGAIN_SCAN_FACTOR	4
#define AGAIN_LAST_MS		(30 * 1000)
#define AGAIN_FORGET_MS		(60 * 1000) /* quiet for so long: the first again */

static bool has_waiting = false;
static uint64 releases = 0;		/* of waiting rows, so far */
static TimestampTz release_at = DT_NOEND;
static TimestampTz released_at = 0;
static bool is_read = true;		/* the scan that began then is over, and took: */
static int	scan_ms = 0;
static int	again_ms = AGAIN_FIRST_MS;

bool
resend_has_waiting(void)
{
	return has_waiting;
}

TimestampTz
resend_release_at(void)
{
	return release_at;
}

void
resend_release_soon(void)
{
	TimestampTz now = clock_now();

	if (release_at != DT_NOEND)
		return;
	if (TimestampDifferenceExceeds(released_at, now, AGAIN_FORGET_MS))
		again_ms = AGAIN_FIRST_MS;
	release_at = TimestampTzPlusMilliseconds(now, again_ms);
}

void
resend_note_read(TimestampTz now)
{
	if (is_read)
		return;
	is_read = true;
	scan_ms = (int) Min(TimestampDifferenceMilliseconds(released_at, now), AGAIN_LAST_MS);
}

/* Begun anew each time, the scan of a large outbox would never come to its end. */
TimestampTz
resend_release_due_at(void)
{
	return is_read ? release_at :
		Max(release_at, TimestampTzPlusMilliseconds(released_at, AGAIN_LAST_MS));
}

void
resend_wait(void)
{
	has_waiting = true;
}

uint64
resend_releases(void)
{
	return releases;
}

bool
resend_release(void)
{
	bool		had_waiting = has_waiting;
	int			last_ms = Min(Max(AGAIN_CHEAP_MS, scan_ms * AGAIN_SCAN_FACTOR), AGAIN_LAST_MS);

	releases++;
	again_ms = release_at == DT_NOEND ? AGAIN_FIRST_MS : Min(again_ms * 2, last_ms);
	release_at = DT_NOEND;
	released_at = clock_now();
	is_read = false;
	has_waiting = false;
	return had_waiting;
}
