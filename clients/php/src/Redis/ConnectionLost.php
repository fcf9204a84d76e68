<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/** Redis did not answer, in time or at all. */
final class ConnectionLost extends \RuntimeException
{
}
