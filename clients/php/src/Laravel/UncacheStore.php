<?php

declare(strict_types=1);

namespace PgUncache\Laravel;

use Illuminate\Cache\RedisStore;
use Illuminate\Cache\TaggedCache;
use Illuminate\Contracts\Redis\Factory;
use Illuminate\Database\Connection;
use Illuminate\Database\Events\TransactionRolledBack;
use PgUncache\Counters;
use PgUncache\Database;
use PgUncache\Event;
use PgUncache\Link;
use PgUncache\Options;
use PgUncache\RequestFills;
use PgUncache\Unserialize;

/**
 * Laravel's Redis store, with fenced fills for the keys that begin with a fenced prefix.
 *
 * remember(), get() and put(), many() and putMany() stay as they are in the application: a get
 * that misses takes the snapshot, the put after it presents it.  Other keys (sessions, rate
 * limits, locks) are Laravel's own business.  Under a fenced prefix
 *   a value that was not looked up before is not stored: put() and add() return false;
 *   forever() stores for the option ttlMs, as nothing lives in a cache for ever;
 *   increment() and decrement() return false.
 *
 * The fence has a connection to Redis of its own, as a command that timed out ends it.
 */
class UncacheStore extends RedisStore
{
    /** For forever(): a day, after which the value is read again. */
    private const TTL_MS = 86_400_000;

    protected RequestFills $fills;
    protected int $ttlMs;
    /** Laravel 8 calls put() for each of many. */
    private bool $isPuttingMany = false;

    /**
     * @param string $prefix of the keys, as for Laravel's own store
     * @param Connection $database on which the application reads what it caches
     * @param array{fenced: list<string>, ttlMs?: int, leaseMs?: ?int, redisTimeoutMs?: int,
     *     onEvent?: callable} $options
     */
    public function __construct(Factory $redis, string $prefix, string $connection,
        Connection $database, array $options)
    {
        parent::__construct($redis, $prefix, $connection);
        $this->fills = RequestFills::of(self::connector($redis, $connection),
            fn () => self::pdoOfReads($database), $options);
        $this->ttlMs = Options::milliseconds('ttlMs', $options['ttlMs'] ?? self::TTL_MS);
        $this->listen($database);
    }

    private static function connector(Factory $redis, string $name): \Closure
    {
        return fn () => method_exists($redis, 'resolve') ? $redis->resolve($name)->client()
            : $redis->connection($name)->client();
    }

    /** Where a SELECT goes now: to a replica, perhaps, but not in a transaction. */
    private static function pdoOfReads(Connection $database): \PDO
    {
        return $database->transactionLevel() > 0 ? $database->getPdo() : $database->getReadPdo();
    }

    /** A value that was read in a transaction that is rolled back must not be stored later. */
    private function listen(Connection $database): void
    {
        $events = $database->getEventDispatcher();
        if ($events === null) {
            throw new \LogicException('the database connection has no event dispatcher, so the '
                . 'store would not hear of a ROLLBACK: call setEventDispatcher() on it');
        }
        $fills = \WeakReference::create($this->fills);
        $name = $database->getName();
        $events->listen(TransactionRolledBack::class, function ($event) use ($fills, $name) {
            if ($event->connectionName === $name) {
                $fills->get()?->rolledBack();
            }
        });
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

    public function get($key)
    {
        return $this->isFenced($key) ? $this->many([$key])[$key] : parent::get($key);
    }

    public function many(array $keys)
    {
        [$fenced, $plain] = $this->divided($keys);
        $found = $this->fills->look(array_map($this->nameOf(...), $fenced), $this->decoded(...));
        $values = $plain === [] ? [] : parent::many($plain);
        $result = [];
        foreach ($keys as $key) {
            $name = $this->nameOf($key);
            $result[$key] = isset($found[$name]) ? $found[$name]->value : $values[$key];
        }
        return $result;
    }

    public function put($key, $value, $seconds)
    {
        if ($this->isFenced($key)) {
            return $this->putTagged((string) $key, $value, (int) $seconds);
        }
        if (!$this->isPuttingMany) {
            $this->fills->counters()->note(Event::PLAIN, ['key' => $key]);
        }
        return parent::put($key, $value, $seconds);
    }

    public function putMany(array $values, $seconds)
    {
        [$fenced, $plain] = $this->divided(array_keys($values));
        $isStored = true;
        foreach ($fenced as $key) {
            $isStored = $this->put($key, $values[$key], $seconds) && $isStored;
        }
        return $this->putManyPlain(array_intersect_key($values, array_flip($plain)), $seconds)
            && $isStored;
    }

    private function putManyPlain(array $values, mixed $seconds): bool
    {
        foreach (array_keys($values) as $key) {
            $this->fills->counters()->note(Event::PLAIN, ['key' => $key]);
        }
        $this->isPuttingMany = true;
        try {
            return $values === [] || parent::putMany($values, $seconds);
        } finally {
            $this->isPuttingMany = false;
        }
    }

    public function add($key, $value, $seconds)
    {
        return $this->isFenced($key) ? $this->put($key, $value, $seconds)
            : parent::add($key, $value, $seconds);
    }

    public function forever($key, $value)
    {
        return $this->isFenced($key) ? $this->putTagged((string) $key, $value, null)
            : parent::forever($key, $value);
    }

    public function increment($key, $value = 1)
    {
        return $this->isFenced($key) ? $this->isNotCounted($key) : parent::increment($key, $value);
    }

    public function decrement($key, $value = 1)
    {
        return $this->isFenced($key) ? $this->isNotCounted($key) : parent::decrement($key, $value);
    }

    public function forget($key)
    {
        $this->fills->forget($this->nameOf($key));
        return parent::forget($key);
    }

    /**
     * Where all tags are fenced (`tag:NAME:key` begins with a fenced prefix) the tags' ids and
     * what is stored under them are filled through the fence; else as Laravel does.
     */
    public function tags($names)
    {
        $names = is_array($names) ? $names : func_get_args();
        foreach ($names as $name) {
            if (!$this->isFenced("tag:$name:key")) {
                return parent::tags($names);
            }
        }
        return new TaggedCache(new TaggedStore($this), new FencedTagSet($this, $names));
    }

    /** For TaggedStore: below fenced tags every key is fenced, whatever it is called. */
    public function getTagged(string $key): mixed
    {
        $name = $this->nameOf($key);
        return $this->fills->look([$name], $this->decoded(...))[$name]->value;
    }

    /** @param ?int $seconds null: for ever, which is the option ttlMs */
    public function putTagged(string $key, mixed $value, ?int $seconds): bool
    {
        if ($value === null) {
            // Laravel takes null for a miss, so it would come back here each time.
            $this->fills->forget($this->nameOf($key));
            return false;
        }
        return $this->fills->store($this->nameOf($key), (string) $this->serialize($value),
            $seconds === null ? $this->ttlMs : 1000 * max(1, $seconds));
    }

    protected function isFenced(mixed $key): bool
    {
        return $this->fills->isFenced((string) $key);
    }

    private function nameOf(mixed $key): string
    {
        return $this->prefix . $key;
    }

    /** @return array{list<mixed>, list<mixed>} fenced keys, others */
    private function divided(array $keys): array
    {
        $fenced = array_filter($keys, $this->isFenced(...));
        return [array_values($fenced), array_values(array_diff_key($keys, $fenced))];
    }

    private function isNotCounted(string $key): bool
    {
        $this->fills->counters()->note(Event::UNFENCED,
            ['key' => $key, 'reason' => 'a fenced key can not be counted up or down']);
        return false;
    }

    /** What can't be unserialized is a miss, and so is an object whose class is gone. */
    private function decoded(mixed $stored): mixed
    {
        return Unserialize::strictly($stored, fn ($stored) => $this->unserialize($stored));
    }
}
