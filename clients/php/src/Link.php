<?php

declare(strict_types=1);

namespace PgUncache;

use PgUncache\Redis\Client;
use PgUncache\Redis\ConnectionLost;
use PgUncache\Redis\Refusal;

/**
 * The fence's way to Redis: no call throws, none waits while Redis is away, and keys get the
 * client's prefix.  A call that was not answered is UNANSWERED.  In a Cluster all this is for each
 * node: one that is away takes none but its own keys with it.
 *
 * The application's client may also be a function that makes it.  Then nothing connects before
 * the first call, and after a loss the function makes a new one.
 */
final class Link
{
    /** A command that was not sent, or not answered, or answered with an error. */
    public const UNANSWERED = false;

    private ?Client $client = null;
    /** What $client wraps: a function may return the same client again. */
    private ?object $wrapped = null;
    /** @var array<string, Breaker> by node; '' of a single server, and before it is known */
    private array $breakers = [];
    private bool $isConnected = false;
    /** False: the functions in Redis are of before there were leases. */
    private bool $knowsLeases = true;

    public function __construct(
        private object $redis,
        private int $timeoutMs,
        private Counters $counters,
    ) {
        if (!$redis instanceof \Closure) {
            $this->client = self::wrap($redis, $timeoutMs);
            $this->wrapped = $redis;
            $this->isConnected = true;
        }
    }

    private static function wrap(mixed $redis, int $timeoutMs): Client
    {
        return match (true) {
            $redis instanceof Client => $redis,
            $redis instanceof \Redis => new Redis\PhpRedis($redis, $timeoutMs),
            $redis instanceof \RedisCluster => new Redis\PhpRedisCluster($redis),
            $redis instanceof \Predis\ClientInterface => new Redis\Predis($redis, $timeoutMs),
            default => throw new \InvalidArgumentException('redis must be a Redis or RedisCluster '
                . 'of the extension redis, a Predis client, or a function that returns one, not '
                . get_debug_type($redis)),
        };
    }

    private function breaker(string $node): Breaker
    {
        if ($this->client === null) {
            // It can't be asked for its address.
            return $this->breakers[$node] ??= new Breaker(null, null);
        }
        if (!isset($this->breakers[$node]) || !$this->breakers[$node]->isOfClient) {
            $wasAway = isset($this->breakers[$node]) && $this->breakers[$node]->reset();
            $address = $this->client->address();
            $this->breakers[$node] = new Breaker($this->client->isTls() ? null : $address,
                $address === null ? null : "pg-uncache away $address", true);
            if ($wasAway) {
                $this->counters->note(Event::BACK);
            }
        }
        return $this->breakers[$node];
    }

    /**
     * The bytes that are stored for keys.
     *
     * @param list<string> $keys
     * @return list<string|false|null> null: a miss; UNANSWERED
     */
    public function get(array $keys): array
    {
        $replies = $this->each($keys, function (Client $client, array $indexes, array $names) {
            return count($names) === 1 ? [$client->call($names[0], 'GET', $names[0])]
                : $client->mget($names);
        });
        return array_map(fn ($one) => is_string($one) || $one === self::UNANSWERED ? $one : null,
            $replies);
    }

    /**
     * uncache_get or uncache_token: an array with the value, with null and a token, or with
     * null, null and for how many ms to wait.
     */
    public function ask(string $function, string $key, ?int $leaseMs): array|false
    {
        $reply = $this->each([$key], function (Client $client, array $indexes, array $names) use (
            $function, $leaseMs) {
            [$name] = $names;
            if ($leaseMs !== null && $this->knowsLeases) {
                try {
                    return [$client->call($name, 'FCALL', $function, '1', $name,
                        (string) $leaseMs)];
                } catch (Refusal $e) {
                    if (!str_contains($e->getMessage(), 'no arguments')) {
                        throw $e;
                    }
                    $this->knowsLeases = false;
                }
            }
            return [$client->call($name, 'FCALL', $function, '1', $name)];
        });
        return self::asArray($reply[0]);
    }

    /**
     * Tokens for many keys, without leases: a load of many is not held up for one key.
     *
     * @param list<array{string, string}> $asked function and key
     * @return list<array|false> replies as those of ask()
     */
    public function askMany(array $asked): array
    {
        $command = fn (int $i, string $name) => [$name, ['FCALL', $asked[$i][0], '1', $name]];
        $replies = $this->each(array_column($asked, 1),
            fn (Client $client, array $indexes, array $names) =>
                $client->calls(array_map($command, $indexes, $names)));
        return array_map(self::asArray(...), $replies);
    }

    private static function asArray(mixed $reply): array|false
    {
        return is_array($reply) || $reply === self::UNANSWERED ? $reply : [null, $reply];
    }

    /**
     * @param list<array{string, string, int, string}> $fills key, snapshot, ttlMs, bytes
     * @return list<mixed> 1 stored, 0 refused, null an error; UNANSWERED
     */
    public function set(array $fills): array
    {
        $command = fn (int $i, string $name) => ['FCALL', 'uncache_set', '1', $name,
            $fills[$i][1], (string) $fills[$i][2], $fills[$i][3]];
        return $this->each(array_column($fills, 0),
            fn (Client $client, array $indexes, array $names) => count($names) === 1
                ? [$client->call($names[0], ...$command($indexes[0], $names[0]))]
                : $client->calls(array_map(fn ($i, $name) => [$name, $command($i, $name)],
                    $indexes, $names)));
    }

    public function report(int $checked, int $stale): void
    {
        $this->guarded('', fn (Client $client) => $client->call('', 'FCALL', 'uncache_report',
            '0', 'checked', (string) $checked, 'stale', (string) $stale));
    }

    /** Store as ever, for a key that is not fenced. */
    public function setPlainly(string $key, string $bytes, int $ttlMs): bool
    {
        return $this->each([$key], fn (Client $client, array $indexes, array $names) =>
            [$client->call($names[0], 'SET', $names[0], $bytes, 'PX', (string) $ttlMs)])
            !== [self::UNANSWERED];
    }

    public function delete(string $key): bool
    {
        return $this->each([$key], fn (Client $client, array $indexes, array $names) =>
            [$client->call($names[0], 'UNLINK', $names[0])]) !== [self::UNANSWERED];
    }

    /** The bytes that the application's client itself would store for a value. */
    public function pack(string $value): string
    {
        return $this->client === null ? $value : $this->client->pack($value);
    }

    public function unpack(string $bytes): mixed
    {
        return $this->client === null ? $bytes : $this->client->unpack($bytes);
    }

    /**
     * Run something for keys, once for each node that has some of them.
     *
     * @param list<string> $keys
     * @param \Closure(Client, list<int>, list<string>): list<mixed> $run is given which of the
     *     keys, and their names in Redis; returns a reply for each
     * @return list<mixed> replies in the order of the keys; UNANSWERED
     */
    private function each(array $keys, \Closure $run): array
    {
        $replies = array_fill(0, count($keys), self::UNANSWERED);
        foreach ($this->byNode($keys) as $node => $indexes) {
            $some = $this->guarded((string) $node, function (Client $client) use (
                $run, $indexes, $keys) {
                $prefix = $client->prefix();
                return $run($client, $indexes, array_map(fn ($i) => $prefix . $keys[$i], $indexes));
            });
            if (is_array($some) && count($some) === count($indexes)) {
                $replies = array_replace($replies, array_combine($indexes, array_values($some)));
            }
        }
        return $replies;
    }

    /** @return array<string, list<int>> which of the keys belong to a node */
    private function byNode(array $keys): array
    {
        $groups = [];
        foreach ($keys as $i => $key) {
            $node = $this->client === null ? ''
                : $this->client->nodeOf($this->client->prefix() . $key);
            $groups[$node][] = $i;
        }
        return $groups;
    }

    private function guarded(string $node, \Closure $work): mixed
    {
        if (!$this->breaker($node)->allows()) {
            return self::UNANSWERED;
        }
        try {
            $this->connect();
            $reply = $work($this->client);
            $this->noteAnswer($node);
            return $reply;
        } catch (Refusal $e) {
            $this->noteAnswer($node);
            $this->counters->note(Event::ERROR, ['message' => $e->getMessage()]);
        } catch (ConnectionLost $e) {
            $this->isConnected = !$this->redis instanceof \Closure;
            $this->breaker($node)->trip();
            $this->counters->note(Event::AWAY, ['message' => $e->getMessage()]);
        }
        return self::UNANSWERED;
    }

    private function noteAnswer(string $node): void
    {
        if ($this->breaker($node)->reset()) {
            $this->counters->note(Event::BACK);
        }
    }

    private function connect(): void
    {
        if ($this->isConnected) {
            return;
        }
        try {
            $redis = ($this->redis)();
        } catch (\Exception $e) {
            throw new ConnectionLost($e->getMessage(), 0, $e);
        }
        if ($redis !== $this->wrapped) {
            $this->client = self::wrap($redis, $this->timeoutMs);
            $this->wrapped = $redis;
        }
        $this->isConnected = true;
    }
}
