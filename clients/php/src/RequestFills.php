<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * What the drop-in stores share: a get that misses takes the snapshot at once, on the
 * connection of the request, and remembers it; the put that follows offers its value with it.
 * So the application's code stays as it is.
 *
 * What put has is stored only if
 *   its key was looked up before, in this request: a value from elsewhere proves nothing;
 *   no transaction has been rolled back meanwhile: the value may be of rows that never were;
 *   the look was outside of a transaction, or in the one that still runs;
 *   that has not written anything by now.
 *
 * Keys outside of the fenced prefixes are not for this class.
 */
final class RequestFills
{
    /** A worker that runs for days must not remember the misses of all its requests. */
    private const MAX_REMEMBERED = 10_000;

    /** @var array<string, array{Found, string, ?string}> miss, snapshot, block by key */
    private array $remembered = [];
    private Lookup $lookup;
    private Filler $filler;

    /** @param list<string> $prefixes the keys that are fenced begin with one of these */
    private function __construct(
        private Link $link,
        private Counters $counters,
        private Database $db,
        private array $prefixes,
        ?int $leaseMs,
    ) {
        $this->lookup = new Lookup($link, $counters, $leaseMs);
        $this->filler = new Filler($link, $counters);
    }

    /**
     * @param object $redis, mixed $db as for Fence
     * @param array $options fenced, ttlMs, leaseMs, redisTimeoutMs, onEvent
     */
    public static function of(object $redis, mixed $db, array $options): self
    {
        $prefixes = $options['fenced'] ?? [];
        if (!is_array($prefixes) || $prefixes === []
                || $prefixes !== array_filter($prefixes, fn ($one) => is_string($one)
                    && $one !== '')) {
            throw new \InvalidArgumentException('fenced must be a list of texts with which fenced '
                . 'keys begin, such as ["user:", "org:"]');
        }
        unset($options['fenced']);
        // A get alone, such as has(), must not make others wait.
        $checked = new Options(['db' => $db] + $options + ['leaseMs' => null]);
        $counters = Counters::shared($checked->onEvent);
        return new self(new Link($redis, $checked->redisTimeoutMs, $counters), $counters,
            $checked->db, array_values($prefixes), $checked->leaseMs);
    }

    public function __destruct()
    {
        foreach ($this->remembered as [$found]) {
            $this->filler->release($found);
        }
    }

    public function isFenced(string $key): bool
    {
        foreach ($this->prefixes as $prefix) {
            if (str_starts_with($key, $prefix)) {
                return true;
            }
        }
        return false;
    }

    public function link(): Link
    {
        return $this->link;
    }

    public function counters(): Counters
    {
        return $this->counters;
    }

    /**
     * @param list<string> $keys
     * @param callable(string): mixed $decode throws where it can't
     * @return array<string, Found>
     */
    public function look(array $keys, callable $decode): array
    {
        if ($keys === []) {
            return [];
        }
        $decode = fn (string $bytes) => $decode($this->link->unpack($bytes));
        $found = count($keys) === 1 ? [$keys[0] => $this->lookup->one($keys[0], $decode)]
            : $this->lookup->many($keys, $decode);
        $misses = array_filter($found, fn ($one) => $one->token !== null);
        [$snapshots, $block] = $this->snapshots($misses);
        foreach ($found as $key => $one) {
            unset($this->remembered[$key]);
            $this->counters->note($one->isHit ? Event::HIT : Event::MISS, ['key' => $one->key]);
            if (isset($snapshots[$key])) {
                $this->remembered[$key] = [$one, $snapshots[$key], $block];
            } elseif (!$one->isHit) {
                $this->filler->release($one);
            }
        }
        if (count($this->remembered) > self::MAX_REMEMBERED) {
            $this->remembered = array_slice($this->remembered, -self::MAX_REMEMBERED, null, true);
        }
        return $found;
    }

    /**
     * Offer a value for a key that was looked up.  Returns whether it was stored.
     *
     * @param string $encoded the value as the library stores it
     */
    public function store(string $key, string $encoded, int $ttlMs): bool
    {
        [$found, $snapshot, $block] = $this->remembered[$key] ?? [null, null, null];
        unset($this->remembered[$key]);
        if ($found === null) {
            $this->filler->giveUp(Found::nothing($key, ''), 'not looked up before, or already '
                . 'stored, in this request');
            return false;
        }
        [$now, $blockNow] = $this->snapshots([$key => $found]);
        if ($block !== null && $block !== $blockNow) {
            $this->filler->giveUp($found, 'the transaction of the look has ended');
            return false;
        }
        if (!isset($now[$key])) {
            $this->filler->giveUp($found, 'the transaction has written');
            return false;
        }
        return $this->filler->offer($found, $snapshot, $ttlMs, $this->link->pack($encoded));
    }

    public function forget(string $key): void
    {
        if (isset($this->remembered[$key])) {
            $this->filler->release($this->remembered[$key][0]);
            unset($this->remembered[$key]);
        }
    }

    /** A transaction, or a part of one, was rolled back. */
    public function rolledBack(): void
    {
        foreach (array_keys($this->remembered) as $key) {
            $this->forget((string) $key);
        }
    }

    /**
     * @param array<string, Found> $misses
     * @return array{array<string, string>, ?string} by key, where there is one; and the block
     */
    private function snapshots(array $misses): array
    {
        if ($misses === []) {
            return [[], null];
        }
        try {
            [$snapshots, $block] = $this->db->snapshotsAndBlock(
                array_values(array_map(fn ($one) => $one->token, $misses)));
        } catch (\PDOException $e) {
            if (!$this->db->isTolerable($e)) {
                throw $e;
            }
            $this->counters->note(Event::ERROR, ['message' => $e->getMessage()]);
            return [[], null];
        }
        return [array_filter(array_combine(array_keys($misses), $snapshots),
            fn ($one) => $one !== null), $block];
    }
}
