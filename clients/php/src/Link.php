<?php

declare(strict_types=1);

namespace PgUncache;

use PgUncache\Redis\Client;
use PgUncache\Redis\ConnectionLost;
use PgUncache\Redis\Refusal;

/**
 * The fence's way to Redis: no call throws, none waits while Redis is away, and keys get the
 * client's prefix.  A call that was not answered is UNANSWERED.
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
    private ?Breaker $breaker = null;
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
            $this->breaker = $this->makeBreaker();
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

    private function makeBreaker(): Breaker
    {
        $address = $this->client->address();
        return new Breaker($this->client->isTls() ? null : $address,
            $address === null ? null : "pg-uncache away $address");
    }

    /** A key's GET, in the bytes that were stored; null: a miss. */
    public function get(string $key): string|false|null
    {
        $reply = $this->guarded(function (Client $client) use ($key) {
            $name = $client->prefix() . $key;
            return $client->call($name, 'GET', $name);
        });
        return is_string($reply) || $reply === self::UNANSWERED ? $reply : null;
    }

    /**
     * @param list<string> $keys
     * @return list<?string>|false
     */
    public function mget(array $keys): array|false
    {
        $replies = $this->guarded(function (Client $client) use ($keys) {
            $prefix = $client->prefix();
            return $client->mget(array_map(fn ($key) => $prefix . $key, $keys));
        });
        return is_array($replies) && count($replies) === count($keys)
            ? array_map(fn ($one) => is_string($one) ? $one : null, array_values($replies))
            : self::UNANSWERED;
    }

    /**
     * uncache_get or uncache_token: an array with the value, with null and a token, or with
     * null, null and for how many ms to wait.
     */
    public function ask(string $function, string $key, ?int $leaseMs): array|false
    {
        $reply = $this->guarded(function (Client $client) use ($function, $key, $leaseMs) {
            $name = $client->prefix() . $key;
            if ($leaseMs !== null && $this->knowsLeases) {
                try {
                    return $client->call($name, 'FCALL', $function, '1', $name, (string) $leaseMs);
                } catch (Refusal $e) {
                    if (!str_contains($e->getMessage(), 'no arguments')) {
                        throw $e;
                    }
                    $this->knowsLeases = false;
                }
            }
            return $client->call($name, 'FCALL', $function, '1', $name);
        });
        return self::asArray($reply);
    }

    /**
     * Tokens for many keys, without leases: a load of many is not held up for one key.
     *
     * @param list<array{string, string}> $asked function and key
     * @return list<array>|false replies as those of ask()
     */
    public function askMany(array $asked): array|false
    {
        $replies = $this->guarded(function (Client $client) use ($asked) {
            $prefix = $client->prefix();
            return $client->calls(array_map(fn ($one) => [$prefix . $one[1],
                ['FCALL', $one[0], '1', $prefix . $one[1]]], $asked));
        });
        return $replies === self::UNANSWERED ? $replies
            : array_map([self::class, 'asArray'], $replies);
    }

    private static function asArray(mixed $reply): array|false
    {
        return is_array($reply) || $reply === self::UNANSWERED ? $reply : [null, $reply];
    }

    /**
     * @param list<array{string, string, int, string}> $fills key, snapshot, ttlMs, bytes
     * @return list<mixed>|false 1 stored, 0 refused, null an error; UNANSWERED
     */
    public function set(array $fills): array|false
    {
        return $this->guarded(function (Client $client) use ($fills) {
            $prefix = $client->prefix();
            $commands = array_map(fn ($fill) => [$prefix . $fill[0], ['FCALL', 'uncache_set', '1',
                $prefix . $fill[0], $fill[1], (string) $fill[2], $fill[3]]], $fills);
            return count($commands) === 1 ? [$client->call($commands[0][0], ...$commands[0][1])]
                : $client->calls($commands);
        });
    }

    public function report(int $checked, int $stale): void
    {
        $this->guarded(fn (Client $client) => $client->call('', 'FCALL', 'uncache_report', '0',
            'checked', (string) $checked, 'stale', (string) $stale));
    }

    /** Store as ever, for a key that is not fenced. */
    public function setPlainly(string $key, string $bytes, int $ttlMs): bool
    {
        return $this->guarded(function (Client $client) use ($key, $bytes, $ttlMs) {
            $name = $client->prefix() . $key;
            return $client->call($name, 'SET', $name, $bytes, 'PX', (string) $ttlMs);
        }) !== self::UNANSWERED;
    }

    public function delete(string $key): bool
    {
        return $this->guarded(function (Client $client) use ($key) {
            $name = $client->prefix() . $key;
            return $client->call($name, 'UNLINK', $name);
        }) !== self::UNANSWERED;
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

    private function guarded(\Closure $work): mixed
    {
        if ($this->breaker !== null && !$this->breaker->allows()) {
            return self::UNANSWERED;
        }
        try {
            $this->connect();
            $reply = $work($this->client);
            $this->noteAnswer();
            return $reply;
        } catch (Refusal $e) {
            $this->noteAnswer();
            $this->counters->note(Event::ERROR, ['message' => $e->getMessage()]);
        } catch (ConnectionLost $e) {
            $this->isConnected = !$this->redis instanceof \Closure;
            $this->breaker ??= new Breaker(null, null);
            $this->breaker->trip();
            $this->counters->note(Event::AWAY, ['message' => $e->getMessage()]);
        }
        return self::UNANSWERED;
    }

    private function noteAnswer(): void
    {
        if ($this->breaker->reset()) {
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
        if ($this->breaker === null || !$this->breaker->hasAddress()) {
            $wasAway = $this->breaker?->reset();
            $this->breaker = $this->makeBreaker();
            if ($wasAway) {
                $this->counters->note(Event::BACK);
            }
        }
    }
}
