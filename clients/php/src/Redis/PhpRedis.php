<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/**
 * The extension redis (phpredis), one server.
 *
 * Measured on 5.3: after a read that timed out, the extension goes on with the same
 * connection, and the late reply is given to the next command.  So the connection is closed
 * after every failure.  It is opened again with select(), since the extension would go on with
 * database 0; and where the server had closed it, which the extension never gets over, with
 * connect(), which forgets the client's options.  The context of a TLS connection is then lost:
 * give the fence a function that makes the client.
 *
 * rawCommand() knows neither the prefix nor the serializer of the client; both are applied
 * here, so that a get() of the same client finds the same value.
 */
final class PhpRedis implements Client
{
    /** What connect() does not keep. */
    private const OPTIONS = [\Redis::OPT_SERIALIZER, \Redis::OPT_PREFIX, \Redis::OPT_SCAN,
        \Redis::OPT_TCP_KEEPALIVE, \Redis::OPT_COMPRESSION, \Redis::OPT_COMPRESSION_LEVEL,
        \Redis::OPT_REPLY_LITERAL, \Redis::OPT_NULL_MULTIBULK_AS_NULL, \Redis::OPT_MAX_RETRIES];

    private bool $isClosed = false;
    private int $database = 0;
    /** host, port, time limit, name of a persistent connection; null: not known yet */
    private ?array $server = null;
    private mixed $credentials = null;
    /** @var array<int, mixed> */
    private array $options = [];

    public function __construct(private \Redis $redis, private int $timeoutMs)
    {
    }

    public function call(string $key, string ...$command): mixed
    {
        return $this->guarded(function () use ($command) {
            $this->redis->clearLastError();
            $reply = $this->redis->rawCommand(...$command);
            if ($reply === false && ($error = $this->redis->getLastError()) !== null) {
                $this->redis->clearLastError();
                throw new Refusal($error);
            }
            return self::nulls($reply);
        });
    }

    public function calls(array $commands): array
    {
        return $this->guarded(function () use ($commands) {
            $this->redis->pipeline();
            foreach ($commands as [, $command]) {
                $this->redis->rawCommand(...$command);
            }
            $replies = $this->redis->exec();
            $this->redis->clearLastError();
            if (!is_array($replies) || count($replies) !== count($commands)) {
                throw new \RedisException('a pipeline without its replies');
            }
            return array_map([self::class, 'nulls'], $replies);
        }, true);
    }

    public function mget(array $keys): array
    {
        return $this->call($keys[0], 'MGET', ...$keys);
    }

    public function nodeOf(string $key): string
    {
        return '';
    }

    public function prefix(): string
    {
        return (string) $this->redis->getOption(\Redis::OPT_PREFIX);
    }

    public function address(): ?string
    {
        $host = $this->redis->getHost();
        if (!is_string($host) || $host === '') {
            return null;
        }
        if ($host[0] === '/' || str_starts_with($host, 'unix:')) {
            return 'unix://' . preg_replace('#^unix:(//)?#', '', $host);
        }
        $name = preg_replace('#^\w+://#', '', $host);
        $name = str_contains($name, ':') && $name[0] !== '[' ? "[$name]" : $name;
        return "tcp://$name:{$this->redis->getPort()}";
    }

    public function isTls(): bool
    {
        return (bool) preg_match('#^(tls|ssl|rediss)#', (string) $this->redis->getHost());
    }

    public function pack(string $value): string
    {
        return $this->redis->_pack($value);
    }

    public function unpack(string $bytes): mixed
    {
        return $this->redis->_unpack($bytes);
    }

    /** With the time limit of the fence, which the client's other commands do not have. */
    private function guarded(\Closure $work, bool $isBatch = false): mixed
    {
        if ($this->redis->getMode() !== \Redis::ATOMIC) {
            throw new Refusal('the client is inside multi() or pipeline()');
        }
        $before = 0.0;
        try {
            if ($this->isClosed) {
                $this->open();
            }
            $this->remember();
            $before = (float) $this->redis->getOption(\Redis::OPT_READ_TIMEOUT);
            $this->redis->setOption(\Redis::OPT_READ_TIMEOUT, $this->timeoutMs / 1000);
            return $work();
        } catch (\RedisException $e) {
            // Of a batch it is not known which replies have been read.
            $isReply = self::isErrorReply($e->getMessage());
            if (!$isReply || $isBatch) {
                $this->close();
            }
            throw $isReply ? new Refusal($e->getMessage(), 0, $e)
                : new ConnectionLost($e->getMessage(), 0, $e);
        } finally {
            // 0 stands for PHP's own limit, but would be no time at all when set.
            $this->redis->setOption(\Redis::OPT_READ_TIMEOUT,
                $before ?: (float) ini_get('default_socket_timeout'));
        }
    }

    /** A client that has failed tells nothing any more. */
    private function remember(): void
    {
        $this->database = (int) $this->redis->getDbNum();
        if ($this->server === null && $this->redis->isConnected()) {
            $this->server = [$this->redis->getHost(), $this->redis->getPort(),
                $this->redis->getTimeout() ?: 0.0, $this->redis->getPersistentID() ?: null];
            $this->credentials = $this->redis->getAuth();
            foreach (self::OPTIONS as $option) {
                $this->options[$option] = $this->redis->getOption($option);
            }
        }
    }

    private function close(): void
    {
        $this->isClosed = true;
        try {
            $this->redis->close();
        } catch (\RedisException) {
            // It was never open.
        }
    }

    private function open(): void
    {
        $limit = $this->timeoutMs / 1000;
        try {
            $this->redis->setOption(\Redis::OPT_READ_TIMEOUT, $limit);
            $this->redis->select($this->database);
        } catch (\RedisException $e) {
            if ($this->server === null) {
                throw $e;
            }
            [$host, $port, $connectLimit, $name] = $this->server;
            $name === null ? $this->redis->connect($host, $port, $connectLimit, null, 0, $limit)
                : $this->redis->pconnect($host, $port, $connectLimit, $name, 0, $limit);
            if ($this->credentials !== null && $this->credentials !== false) {
                $this->redis->auth($this->credentials);
            }
            $this->redis->select($this->database);
            foreach ($this->options as $option => $value) {
                $this->redis->setOption($option, $value);
            }
        }
        $this->isClosed = false;
    }

    /** "NOPERM this user ..": Redis said no.  "Connection lost": it said nothing. */
    public static function isErrorReply(string $message): bool
    {
        return (bool) preg_match('/^-?[A-Z]{3,} /', $message);
    }

    /** The extension's false is Redis's nil. */
    public static function nulls(mixed $reply): mixed
    {
        if (is_array($reply)) {
            return array_map([self::class, 'nulls'], $reply);
        }
        return $reply === false ? null : $reply;
    }
}
