<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * Looks keys up, and gets tokens for those that are missing.
 *
 * A value that can't be decoded counts as missing; its token is one that replaces it.  Where
 * another session holds the lease of a key, the look is repeated until that one has stored its
 * value, but for no longer than two leases: the first holder may have died, and its successor
 * takes a lease of its own.
 */
final class Lookup
{
    private const POLL_MIN_US = 10_000;
    private const POLL_MAX_US = 50_000;

    public function __construct(
        private Link $link,
        private Counters $counters,
        private ?int $leaseMs,
    ) {
    }

    /** @param callable(string): mixed $decode bytes to a value; throws where it can't */
    public function one(string $key, callable $decode): Found
    {
        [$bytes] = $this->link->get([$key]);
        if ($bytes === Link::UNANSWERED) {
            return self::unanswered($key);
        }
        if ($bytes !== null && ($found = self::decoded($key, $bytes, $decode))) {
            return $found;
        }
        return $this->ask($key, $bytes === null ? 'uncache_get' : 'uncache_token', $decode);
    }

    private function ask(string $key, string $function, callable $decode): Found
    {
        $deadline = null;
        for (;;) {
            $reply = $this->link->ask($function, $key, $this->leaseMs);
            if ($reply === Link::UNANSWERED) {
                return self::unanswered($key);
            }
            if (is_string($reply[0] ?? null)) {
                if ($found = self::decoded($key, $reply[0], $decode)) {
                    return $found;
                }
                $function = 'uncache_token';
                continue;
            }
            if (is_string($reply[1] ?? null)) {
                return Found::miss($key, $reply[1], $this->leaseMs !== null);
            }
            if (!isset($reply[2])) {
                return Found::nothing($key, 'no token');
            }
            if ($deadline === null) {
                $this->counters->note(Event::WAITED, ['key' => $key]);
                $deadline = microtime(true) + 2 * $this->leaseMs / 1000;
            }
            if (microtime(true) >= $deadline) {
                return Found::nothing($key, 'another session fills it');
            }
            usleep(random_int(self::POLL_MIN_US, self::POLL_MAX_US));
            $function = 'uncache_get';
        }
    }

    /**
     * @param list<string> $keys
     * @return array<string, Found> by key
     */
    public function many(array $keys, callable $decode): array
    {
        $values = $this->link->get($keys);
        $found = $asked = [];
        foreach ($keys as $i => $key) {
            if ($values[$i] === Link::UNANSWERED) {
                $found[$key] = self::unanswered($key);
                continue;
            }
            $found[$key] = $values[$i] === null ? null : self::decoded($key, $values[$i], $decode);
            if ($found[$key] === null) {
                $asked[] = [$values[$i] === null ? 'uncache_get' : 'uncache_token', $key];
            }
        }
        return $this->askMany($asked, $decode) + array_filter($found);
    }

    private function askMany(array $asked, callable $decode): array
    {
        $found = [];
        $replies = $this->link->askMany($asked);
        foreach ($asked as $i => [, $key]) {
            $reply = $replies[$i] ?: [];
            if (is_string($reply[0] ?? null)) {
                $found[$key] = self::decoded($key, $reply[0], $decode);
            }
            $found[$key] ??= is_string($reply[1] ?? null) ? Found::miss($key, $reply[1], false)
                : Found::nothing($key, 'no token');
        }
        return $found;
    }

    private static function decoded(string $key, string $bytes, callable $decode): ?Found
    {
        try {
            return Found::hit($key, $decode($bytes), $bytes);
        } catch (\Throwable) {
            return null;
        }
    }

    private static function unanswered(string $key): Found
    {
        return Found::nothing($key, 'Redis did not answer');
    }
}
