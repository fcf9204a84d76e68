<?php

declare(strict_types=1);

namespace PgUncache;

/** What a look into Redis has found: a value, or else perhaps a token for a fill. */
final class Found
{
    private function __construct(
        public readonly string $key,
        public readonly bool $isHit,
        public readonly mixed $value = null,
        public readonly ?string $bytes = null,
        public readonly ?string $token = null,
        public readonly string $reason = '',
        public readonly bool $isLeased = false,
    ) {
    }

    public static function hit(string $key, mixed $value, string $bytes): self
    {
        return new self($key, true, $value, $bytes);
    }

    public static function miss(string $key, string $token, bool $isLeased): self
    {
        return new self($key, false, token: $token, isLeased: $isLeased);
    }

    /** A miss that can't be filled, and why. */
    public static function nothing(string $key, string $reason): self
    {
        return new self($key, false, reason: $reason);
    }
}
