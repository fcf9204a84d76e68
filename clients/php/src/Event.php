<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * The names of what a Fence counts and tells its option onEvent.
 *
 * HIT to WAITED are counted, too.  The second argument of onEvent is an array: `key` with all
 * that belong to a key, `message` with ERROR, AWAY and WARNING, `stale` (bool) with CHECKED.
 */
final class Event
{
    /** Answered by Redis. */
    public const HIT = 'hit';
    /** Not in Redis, or not decodable. */
    public const MISS = 'miss';
    /** A fill that Redis took. */
    public const STORED = 'stored';
    /** A fill that Redis did not take: its value could not be proven to be new enough. */
    public const REFUSED = 'refused';
    /** A miss whose value could not be offered: no token, no snapshot, Redis away. */
    public const UNFENCED = 'unfenced';
    /** A miss that waited for another session's fill. */
    public const WAITED = 'waited';
    /** A store: a key outside of its fenced prefixes was stored as ever. */
    public const PLAIN = 'plain';
    /** A hit was compared with the database. */
    public const CHECKED = 'checked';
    /** Redis answered with an error. */
    public const ERROR = 'error';
    /** Redis went away, and came back. */
    public const AWAY = 'away';
    public const BACK = 'back';
    /** Nothing could be stored for a minute: see the message. */
    public const WARNING = 'warning';
}
