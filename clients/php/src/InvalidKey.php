<?php

declare(strict_types=1);

namespace PgUncache;

/** PSR-16's word for a wrong argument. */
final class InvalidKey extends \InvalidArgumentException implements
    \Psr\SimpleCache\InvalidArgumentException
{
}
