<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/** Redis answered with an error: a missing right or function, a key of another type. */
final class Refusal extends \RuntimeException
{
}
