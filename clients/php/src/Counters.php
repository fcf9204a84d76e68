<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * Counts, tells onEvent, and warns once where nothing has been stored for a minute although
 * there were fills to store.
 *
 * A request of PHP-FPM is shorter than that.  Where the extension APCu is on, its processes share
 * the moment of the first fill that was not stored, and one of them warns.
 */
final class Counters
{
    private const WARN_AFTER_S = 60.0;
    /** Of the shared moment: the processes that knew it may all have ended. */
    private const FORGET_AFTER_S = 3600;

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
     * @param ?string $sharedName under which APCu keeps it; null: not shared
     */
    public function __construct(
        private $onEvent = null,
        private $clock = null,
        private ?string $sharedName = null,
    ) {
        if (!function_exists('apcu_enabled') || !apcu_enabled()) {
            $this->sharedName = null;
        }
    }

    /** With the moment shared by the processes of this application. */
    public static function shared(?callable $onEvent): self
    {
        return new self($onEvent, null, 'pg-uncache unfenced ' . __DIR__);
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
            $this->forgetUnfenced();
        } elseif ($event === Event::UNFENCED) {
            $this->warnIfLong();
        }
    }

    private function warnIfLong(): void
    {
        $now = $this->clock !== null ? ($this->clock)() : microtime(true);
        $this->unfencedSince ??= $this->sharedSince($now);
        if ($this->hasWarned || $now - $this->unfencedSince < self::WARN_AFTER_S) {
            return;
        }
        $this->hasWarned = true;
        if ($this->sharedName !== null
                && !apcu_add("$this->sharedName warned", 1, self::FORGET_AFTER_S)) {
            return;
        }
        $message = 'pg-uncache: no value could be stored for a minute, so every miss reads the '
            . 'database. Ask SELECT state, fence, last_error FROM uncache.stat'
            . ($this->lastReason === '' ? '' : "; Redis said: $this->lastReason");
        if ($this->onEvent === null) {
            error_log($message);
        }
        $this->tell(Event::WARNING, ['message' => $message]);
    }

    /** When the first fill was not stored, in this process or in another one. */
    private function sharedSince(float $now): float
    {
        if ($this->sharedName === null) {
            return $now;
        }
        apcu_add($this->sharedName, $now, self::FORGET_AFTER_S);
        return (float) (apcu_fetch($this->sharedName) ?: $now);
    }

    private function forgetUnfenced(): void
    {
        $this->unfencedSince = null;
        $this->hasWarned = false;
        $this->lastReason = '';
        if ($this->sharedName !== null) {
            apcu_delete([$this->sharedName, "$this->sharedName warned"]);
        }
    }

    private function tell(string $event, array $data): void
    {
        if ($this->onEvent !== null) {
            ($this->onEvent)($event, $data);
        }
    }
}
