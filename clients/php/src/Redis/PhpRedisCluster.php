<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/**
 * The extension redis (phpredis), a Cluster.
 *
 * The extension has no pipeline there, and no time limit that can be changed later: an
 * application gives RedisCluster its two timeouts when it makes it.
 */
final class PhpRedisCluster implements Client
{
    private Slots $slots;

    public function __construct(private \RedisCluster $redis)
    {
        $this->slots = new Slots();
    }

    public function call(string $key, string ...$command): mixed
    {
        return $this->guarded(function () use ($key, $command) {
            $this->redis->clearLastError();
            $where = $key === '' ? $this->redis->_masters()[0] : $key;
            $reply = $this->redis->rawCommand($where, ...$command);
            if ($reply === false && ($error = $this->redis->getLastError()) !== null) {
                $this->redis->clearLastError();
                throw new Refusal($error);
            }
            return PhpRedis::nulls($reply);
        });
    }

    public function calls(array $commands): array
    {
        $replies = [];
        foreach ($commands as [$key, $command]) {
            try {
                $replies[] = $this->call($key, ...$command);
            } catch (Refusal) {
                $replies[] = null;
            }
        }
        return $replies;
    }

    public function mget(array $keys): array
    {
        $replies = [];
        foreach ($keys as $key) {
            $replies[] = $this->call($key, 'GET', $key);
        }
        return $replies;
    }

    public function nodeOf(string $key): string
    {
        return $this->slots->nodeOf($key, $this);
    }

    public function prefix(): string
    {
        return (string) $this->redis->getOption(\Redis::OPT_PREFIX);
    }

    public function address(): ?string
    {
        return null;
    }

    public function isTls(): bool
    {
        return false;
    }

    public function pack(string $value): string
    {
        return $this->redis->_pack($value);
    }

    public function unpack(string $bytes): mixed
    {
        return $this->redis->_unpack($bytes);
    }

    private function guarded(\Closure $work): mixed
    {
        if ($this->redis->getMode() !== \Redis::ATOMIC) {
            throw new Refusal('the client is inside multi()');
        }
        try {
            return $work();
        } catch (\RedisException | \RedisClusterException $e) {
            $this->redis->close();
            throw PhpRedis::isErrorReply($e->getMessage()) ? new Refusal($e->getMessage(), 0, $e)
                : new ConnectionLost($e->getMessage(), 0, $e);
        }
    }
}
