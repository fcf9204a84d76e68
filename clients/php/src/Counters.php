<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * Counts, tells onEvent, and warns once where nothing has been stored for a minute although
 * there were fills to store.
 */
final class Counters
{
    private const WARN_AFTER_S = 60.0;

    /** @var array<string, int> */
    private array $counts = [
        Event::HIT => 0, Event::MISS => 0, Event::STORED => 0, Event::REFUSED => 0,
        Event::UNFENCED => 0, Event::WAITED => 0,
    ];
    private ?float $unfencedSince = null;
    private bool $hasWarned = false;
    private string $lastReason = '';

    /**
     * @param ?callable(string, array<string, mixed>): void $onEvent
     * @param ?callable(): float $clock seconds
     */
    public function __construct(private $onEvent = null, private $clock = null)
    {
    }

    /** @return array<string, int> */
    public function all(): array
    {
        return $this->counts;
    }

    /** @param array<string, mixed> $data */
    public function note(string $event, array $data = []): void
    {
        if (isset($this->counts[$event]) || $event === Event::PLAIN || $event === Event::CHECKED) {
            $this->counts[$event] = ($this->counts[$event] ?? 0) + 1;
        }
        if ($event === Event::ERROR || $event === Event::AWAY) {
            $this->lastReason = $data['message'];
        }
        $this->tell($event, $data);
        if ($event === Event::STORED) {
            $this->unfencedSince = null;
            $this->hasWarned = false;
            $this->lastReason = '';
        } elseif ($event === Event::UNFENCED) {
            $this->warnIfLong();
        }
    }

    private function warnIfLong(): void
    {
        $now = $this->clock !== null ? ($this->clock)() : microtime(true);
        $this->unfencedSince ??= $now;
        if ($this->hasWarned || $now - $this->unfencedSince < self::WARN_AFTER_S) {
            return;
        }
        $this->hasWarned = true;
        $message = 'pg-uncache: no value could be stored for a minute, so every miss reads the '
            . 'database. Ask SELECT state, fence, last_error FROM uncache.stat'
            . ($this->lastReason === '' ? '' : "; Redis said: $this->lastReason");
        if ($this->onEvent === null) {
            error_log($message);
        }
        $this->tell(Event::WARNING, ['message' => $message]);
    }

    private function tell(string $event, array $data): void
    {
        if ($this->onEvent !== null) {
            ($this->onEvent)($event, $data);
        }
    }
}
