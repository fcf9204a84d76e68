<?php

declare(strict_types=1);

namespace PgUncache;

/** Offers values to Redis, and counts what became of them. */
final class Filler
{
    public function __construct(
        private Link $link,
        private Counters $counters,
    ) {
    }

    /** Returns whether Redis has stored the bytes. */
    public function offer(Found $found, ?string $snapshot, int $ttlMs, string $bytes): bool
    {
        return $this->offerMany([[$found, $snapshot, $ttlMs, $bytes]])[0];
    }

    /**
     * @param list<array{Found, ?string, int, string}> $fills
     * @return list<bool>
     */
    public function offerMany(array $fills): array
    {
        $stored = array_fill(0, count($fills), false);
        $sent = [];
        foreach ($fills as $i => [$found, $snapshot, $ttlMs, $bytes]) {
            if ($found->token !== null && $snapshot !== null) {
                $sent[$i] = [$found->key, $snapshot, $ttlMs, $bytes];
            } else {
                $this->giveUp($found, $found->reason ?: 'no snapshot');
            }
        }
        $replies = $this->link->set(array_values($sent));
        foreach (array_keys($sent) as $n => $i) {
            $stored[$i] = $replies[$n] === 1;
            $this->note($fills[$i][0]->key, $replies[$n]);
        }
        return $stored;
    }

    /** Nothing will be stored: say so, and let another reader have the lease. */
    public function giveUp(Found $found, string $reason): void
    {
        $this->counters->note(Event::UNFENCED, ['key' => $found->key, 'reason' => $reason]);
        $this->release($found);
    }

    /** An empty snapshot stores nothing and ends the lease. */
    public function release(Found $found): void
    {
        if ($found->isLeased) {
            $this->link->set([[$found->key, '', 1, '']]);
        }
    }

    private function note(string $key, mixed $reply): void
    {
        match ($reply) {
            1 => $this->counters->note(Event::STORED, ['key' => $key]),
            0 => $this->counters->note(Event::REFUSED, ['key' => $key]),
            default => $this->counters->note(Event::UNFENCED,
                ['key' => $key, 'reason' => 'Redis did not answer']),
        };
    }
}
