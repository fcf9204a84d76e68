<?php

declare(strict_types=1);

namespace PgUncache;

use Psr\SimpleCache\CacheInterface;

/**
 * A PSR-16 cache with fenced fills, for libraries and frameworks that take one (Symfony's
 * Psr16Adapter makes a Symfony cache of it).
 *
 *     $cache = new SimpleCache($redis, ['db' => $pdo, 'fenced' => ['user:']]);
 *
 * A get that misses takes the snapshot on the connection db, a set after it presents it.  Under
 * a fenced prefix a set without such a get stores nothing and returns false.  Other keys are
 * stored plainly, and counted.
 *
 * Options: db, fenced, ttlMs (where a set gives no TTL; an hour unless told), leaseMs (null
 * unless told), redisTimeoutMs, onEvent, as those of Fence.
 *
 * After a ROLLBACK call rolledBack(): nothing else tells this class.
 */
final class SimpleCache implements CacheInterface
{
    private const TTL_MS = 3_600_000;
    /** Characters that PSR-16 keeps for itself. */
    private const RESERVED = '{}()/\\@';

    private RequestFills $fills;
    private int $ttlMs;

    public function __construct(object $redis, array $options = [], mixed ...$named)
    {
        $options += $named;
        $db = $options['db'] ?? null;
        unset($options['db']);
        $this->fills = RequestFills::of($redis, $db, $options);
        $this->ttlMs = $options['ttlMs'] ?? self::TTL_MS;
    }

    /**
     * How often each event was counted: hit, miss, stored, refused, unfenced, waited, plain.
     *
     * @return array<string, int>
     */
    public function counters(): array
    {
        return $this->fills->counters()->all();
    }

    /** A transaction, or a part of one, was rolled back: what was read in it is not stored. */
    public function rolledBack(): void
    {
        $this->fills->rolledBack();
    }

    public function get($key, $default = null): mixed
    {
        return $this->getMultiple([$key], $default)[$key];
    }

    public function getMultiple($keys, $default = null): iterable
    {
        $keys = self::checked($keys);
        $fenced = array_values(array_filter($keys, $this->fills->isFenced(...)));
        $found = $this->fills->look($fenced, self::decode(...))
            + $this->plain(array_values(array_diff($keys, $fenced)));
        $values = [];
        foreach ($keys as $key) {
            $values[$key] = $found[$key]?->isHit ? $found[$key]->value : $default;
        }
        return $values;
    }

    /** @return array<string, ?Found> */
    private function plain(array $keys): array
    {
        $bytes = $this->fills->link()->get($keys);
        $found = array_fill_keys($keys, null);
        foreach ($keys as $i => $key) {
            try {
                $found[$key] = !is_string($bytes[$i]) ? null : Found::hit($key,
                    self::decode($this->fills->link()->unpack($bytes[$i])), $bytes[$i]);
            } catch (\Throwable) {
                // Not decodable: a miss.
            }
        }
        return $found;
    }

    public function set($key, $value, $ttl = null): bool
    {
        return $this->setMultiple([$key => $value], $ttl);
    }

    public function setMultiple($values, $ttl = null): bool
    {
        $ttlMs = self::milliseconds($ttl) ?? $this->ttlMs;
        $isStored = true;
        foreach ($values as $key => $value) {
            [$key] = self::checked([is_int($key) ? (string) $key : $key]);
            $isStored = ($ttlMs <= 0 ? $this->delete($key)
                : $this->store($key, serialize($value), $ttlMs)) && $isStored;
        }
        return $isStored;
    }

    private function store(string $key, string $encoded, int $ttlMs): bool
    {
        if ($this->fills->isFenced($key)) {
            return $this->fills->store($key, $encoded, $ttlMs);
        }
        $this->fills->counters()->note(Event::PLAIN, ['key' => $key]);
        $link = $this->fills->link();
        return $link->setPlainly($key, $link->pack($encoded), $ttlMs);
    }

    public function delete($key): bool
    {
        [$key] = self::checked([$key]);
        $this->fills->forget($key);
        return $this->fills->link()->delete($key);
    }

    public function deleteMultiple($keys): bool
    {
        $isDone = true;
        foreach (self::checked($keys) as $key) {
            $isDone = $this->delete($key) && $isDone;
        }
        return $isDone;
    }

    /** Which keys are this cache's own is not known, and Redis may hold other things. */
    public function clear(): bool
    {
        return false;
    }

    public function has($key): bool
    {
        return $this->get($key, $this) !== $this;
    }

    /** @return list<string> */
    private static function checked(mixed $keys): array
    {
        $checked = [];
        foreach (is_iterable($keys)
            ? $keys : throw new InvalidKey('keys must be iterable') as $key) {
            if (!is_string($key) || $key === '' || strpbrk($key, self::RESERVED) !== false) {
                throw new InvalidKey('a key must be a text, not empty and without '
                    . self::RESERVED . ', not ' . var_export($key, true));
            }
            $checked[] = $key;
        }
        return $checked;
    }

    private static function milliseconds(mixed $ttl): ?int
    {
        return match (true) {
            $ttl === null => null,
            is_int($ttl) => 1000 * $ttl,
            $ttl instanceof \DateInterval =>
                1000 * ((new \DateTimeImmutable('@0'))->add($ttl)->getTimestamp()),
            default => throw new InvalidKey('a TTL must be seconds or a DateInterval, not '
                . get_debug_type($ttl)),
        };
    }

    private static function decode(mixed $stored): mixed
    {
        return Unserialize::strictly($stored, 'unserialize');
    }
}
