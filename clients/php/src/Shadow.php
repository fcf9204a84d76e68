<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * Compares a hit with the database: finds rules that are missing, and readers that store plainly.
 *
 * A value that differs may only be on its way to be deleted.  It counts as stale if it is still
 * there once everything committed before has been delivered, and the database still has another
 * one.  Where the reads may be older than the hit (in a transaction, on a standby) nothing is
 * compared.
 */
final class Shadow
{
    public function __construct(
        private Link $link,
        private Counters $counters,
        private Database $db,
    ) {
    }

    /**
     * @param callable(string): array{?string, string} $read token to snapshot and encoded value
     * @param string $bytes the hit, encoded again, as it would be today
     */
    public function check(Found $hit, callable $read, string $bytes): void
    {
        try {
            if ($this->db->isInTransaction()) {
                return;
            }
            $reply = $this->link->ask('uncache_token', $hit->key, null);
            $token = is_array($reply) ? $reply[1] ?? null : null;
            if (!is_string($token)) {
                return;
            }
            [$snapshot, $now] = $read($token);
            if ($snapshot === null || !self::isFresh($snapshot)) {
                return;
            }
            $isStale = $now !== $bytes && $this->staysStale($hit, $read, $token, $bytes);
        } catch (\Exception $e) {
            $this->counters->note(Event::ERROR, ['message' => $e->getMessage()]);
            return;
        }
        $this->counters->note(Event::CHECKED, ['key' => $hit->key, 'stale' => $isStale]);
        $this->link->report(1, $isStale ? 1 : 0);
    }

    private function staysStale(Found $hit, callable $read, string $token, string $bytes): bool
    {
        return $this->db->wait() && $this->link->get([$hit->key]) === [$hit->bytes]
            && $read($token)[1] !== $bytes;
    }

    /** Of the statement that was given the token; its text is token:incarnation:fresh:xmin:.. */
    private static function isFresh(string $snapshot): bool
    {
        return (explode(':', $snapshot)[3] ?? '') === '1';
    }
}
