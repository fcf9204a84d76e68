<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/**
 * Which node of a Cluster a key belongs to.
 *
 * The clients keep that to themselves, or guess, so the Cluster is asked once.  The names stand
 * for groups of keys that fail together and need not stay true: after a failover the slots of a
 * node have another one, and are still a group.
 */
final class Slots
{
    /** @var list<array{int, int, string}> first slot, last slot, node */
    private array $ranges = [];

    /** '' where the Cluster does not say. */
    public function nodeOf(string $key, Client $client): string
    {
        if ($this->ranges === []) {
            try {
                $this->ranges = array_map(fn ($one) => [$one[0], $one[1],
                    "{$one[2][0]}:{$one[2][1]}"], $client->call('', 'CLUSTER', 'SLOTS'));
            } catch (ConnectionLost | Refusal) {
                return '';
            }
        }
        $slot = self::slotOf($key);
        foreach ($this->ranges as [$first, $last, $node]) {
            if ($first <= $slot && $slot <= $last) {
                return $node;
            }
        }
        return '';
    }

    /** CRC16 (XMODEM) of the key, or of its hash tag. */
    public static function slotOf(string $key): int
    {
        if (preg_match('/^[^{]*\{([^}]+)\}/', $key, $tag)) {
            $key = $tag[1];
        }
        $crc = 0;
        foreach (unpack('C*', $key) as $byte) {
            $crc ^= $byte << 8;
            for ($bit = 0; $bit < 8; $bit++) {
                $crc = ($crc & 0x8000 ? $crc << 1 ^ 0x1021 : $crc << 1) & 0xffff;
            }
        }
        return $crc % 16384;
    }
}
