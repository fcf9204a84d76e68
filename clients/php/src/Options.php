<?php

declare(strict_types=1);

namespace PgUncache;

/** The options of a Fence, checked. */
final class Options
{
    /** A day in the life of a value would be fine where a rule covers its key. */
    private const TTL_MS = 3_600_000;
    private const LEASE_MS = 1_000;
    /** What the functions in Redis take. */
    private const MAX_LEASE_MS = 60_000;
    private const REDIS_TIMEOUT_MS = 50;

    public readonly ?Database $db;
    public readonly ?\Closure $snapshot;
    public readonly int $ttlMs;
    public readonly ?int $leaseMs;
    public readonly int $redisTimeoutMs;
    public readonly float $shadow;
    public readonly \Closure $encode;
    public readonly \Closure $decode;
    public readonly ?\Closure $onEvent;

    /** @param array<string, mixed> $given */
    public function __construct(array $given)
    {
        $known = ['db', 'snapshot', 'ttlMs', 'leaseMs', 'redisTimeoutMs', 'shadow', 'encode',
            'decode', 'onEvent'];
        foreach (array_diff(array_keys($given), $known) as $name) {
            throw new \InvalidArgumentException("unknown option \"$name\"; the options are "
                . implode(', ', $known));
        }
        $this->db = isset($given['db']) ? Database::of($given['db']) : null;
        $this->snapshot = self::callable($given, 'snapshot');
        if ($this->db === null && $this->snapshot === null) {
            throw new \InvalidArgumentException('the option db is missing: a PDO connection to '
                . 'PostgreSQL, or a function that returns it');
        }
        $this->ttlMs = self::milliseconds('ttlMs', $given['ttlMs'] ?? self::TTL_MS);
        $this->leaseMs = self::lease(array_key_exists('leaseMs', $given) ? $given['leaseMs']
            : self::LEASE_MS);
        $this->redisTimeoutMs = self::milliseconds('redisTimeoutMs',
            $given['redisTimeoutMs'] ?? self::REDIS_TIMEOUT_MS);
        $this->shadow = $this->share($given['shadow'] ?? 0);
        $this->encode = self::callable($given, 'encode') ?? self::toJson(...);
        $this->decode = self::callable($given, 'decode') ?? self::fromJson(...);
        if (isset($given['encode']) !== isset($given['decode'])) {
            throw new \InvalidArgumentException('encode and decode belong together');
        }
        $this->onEvent = self::callable($given, 'onEvent');
    }

    public static function milliseconds(string $name, mixed $value): int
    {
        if (!is_int($value) || $value <= 0) {
            throw new \InvalidArgumentException("$name must be a positive whole number of "
                . 'milliseconds, not ' . var_export($value, true));
        }
        return $value;
    }

    private static function lease(mixed $value): ?int
    {
        if ($value !== null && self::milliseconds('leaseMs', $value) > self::MAX_LEASE_MS) {
            throw new \InvalidArgumentException('leaseMs must be at most '
                . self::MAX_LEASE_MS . ', or null for no lease, not ' . $value);
        }
        return $value;
    }

    private function share(mixed $value): float
    {
        if (!is_int($value) && !is_float($value) || $value < 0 || $value > 1) {
            throw new \InvalidArgumentException('shadow must be a share from 0 to 1, not '
                . var_export($value, true));
        }
        if ($value > 0 && $this->db === null) {
            throw new \InvalidArgumentException('shadow needs the option db');
        }
        return (float) $value;
    }

    private static function callable(array $given, string $name): ?\Closure
    {
        if (!isset($given[$name])) {
            return null;
        }
        if (!is_callable($given[$name])) {
            throw new \InvalidArgumentException("$name must be a function, not "
                . get_debug_type($given[$name]));
        }
        return \Closure::fromCallable($given[$name]);
    }

    private static function toJson(mixed $value): string
    {
        return json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE
            | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION);
    }

    private static function fromJson(string $bytes): mixed
    {
        return json_decode($bytes, true, 512, JSON_THROW_ON_ERROR);
    }
}
