<?php

declare(strict_types=1);

namespace PgUncache;

/** PHP's unserialize(), which else would answer false, or objects of no class. */
final class Unserialize
{
    /** @param callable(mixed): mixed $unserialize */
    public static function strictly(mixed $stored, callable $unserialize): mixed
    {
        $callback = ini_set('unserialize_callback_func', self::class . '::classIsMissing');
        set_error_handler(fn (int $level, string $message) =>
            throw new \UnexpectedValueException($message), E_NOTICE | E_WARNING);
        try {
            return $unserialize($stored);
        } finally {
            restore_error_handler();
            ini_set('unserialize_callback_func', (string) $callback);
        }
    }

    public static function classIsMissing(string $class): never
    {
        throw new \UnexpectedValueException("there is no class $class");
    }
}
