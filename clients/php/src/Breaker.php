<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * Knows whether Redis is away, so that only one command waits for it.
 *
 * Once a command has failed, none is let through until Redis has answered again.  That is found
 * out without waiting: a socket of its own is opened in the background, and each later call
 * looks for a moment whether the PING sent through it has been answered.  Where there is no
 * such address (a Cluster), or TLS stands before it, one command a second is let through as the
 * trial.
 *
 * A process of PHP-FPM forgets this with each request.  Where the extension APCu is on, the
 * processes tell each other, so that an outage costs one wait a second for all of them.
 *
 * Limits: a host name that does not resolve makes PHP wait for its name server.
 */
final class Breaker
{
    /** Between two attempts to connect, and between two trials. */
    private const RETRY_S = 0.1;
    private const TRIAL_S = 1.0;

    private bool $isOpen = false;
    private float $notBefore = 0.0;
    /** @var resource|null */
    private $socket = null;
    private bool $isAsked = false;

    /**
     * @param ?string $address as Redis\Client::address(); null: trials only
     * @param ?string $sharedName of this server, for APCu; null: not shared
     * @param bool $isOfClient false while there was no client to ask for the address
     */
    public function __construct(
        private ?string $address,
        private ?string $sharedName,
        public readonly bool $isOfClient = false,
    ) {
    }

    /** Whether a command may be sent. */
    public function allows(): bool
    {
        if (!$this->isOpen && !$this->isAwayForOthers()) {
            return true;
        }
        if (!$this->isOpen) {
            $this->isOpen = true;
            $this->notBefore = microtime(true) + ($this->address === null ? self::TRIAL_S : 0);
        }
        return $this->address === null ? $this->isTimeForTrial() : $this->hasAnswered();
    }

    /** A command has failed. */
    public function trip(): void
    {
        $this->isOpen = true;
        $this->dropSocket($this->address === null ? self::TRIAL_S : 0);
        if ($this->isShared()) {
            apcu_store($this->sharedName, 1, (int) self::TRIAL_S);
        }
    }

    /** A command has been answered; returns whether Redis was away before. */
    public function reset(): bool
    {
        if (!$this->isOpen) {
            return false;
        }
        $this->isOpen = false;
        $this->dropSocket(0);
        if ($this->isShared()) {
            apcu_delete($this->sharedName);
        }
        return true;
    }

    private function isAwayForOthers(): bool
    {
        return $this->isShared() && apcu_exists($this->sharedName);
    }

    private function isShared(): bool
    {
        return $this->sharedName !== null && function_exists('apcu_enabled') && apcu_enabled();
    }

    private function isTimeForTrial(): bool
    {
        if (microtime(true) < $this->notBefore) {
            return false;
        }
        $this->notBefore = microtime(true) + self::TRIAL_S;
        return true;
    }

    private function hasAnswered(): bool
    {
        $now = microtime(true);
        if ($this->socket === null && $now >= $this->notBefore) {
            // A connection that has died silently is given up after a while.
            $this->notBefore = $now + self::TRIAL_S;
            $this->isAsked = false;
            $this->socket = @stream_socket_client($this->address, $code, $message, 0.0,
                STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT) ?: null;
            if ($this->socket !== null) {
                stream_set_blocking($this->socket, false);
            } else {
                $this->notBefore = $now + self::RETRY_S;
            }
        }
        return $this->socket !== null && $this->look($now);
    }

    /** One look at the socket. */
    private function look(float $now): bool
    {
        if (!$this->isAsked) {
            $read = $except = null;
            $write = [$this->socket];
            if (!@stream_select($read, $write, $except, 0)) {
                return $this->giveUpIfLate($now);
            }
            if (!@fwrite($this->socket, "PING\r\n")) {
                $this->dropSocket(self::RETRY_S);
                return false;
            }
            $this->isAsked = true;
        }
        $answer = @fread($this->socket, 64);
        if (is_string($answer) && $answer !== '') {
            $isBack = !str_starts_with($answer, '-LOADING');
            $this->dropSocket($isBack ? 0 : self::RETRY_S);
            return $isBack;
        }
        if (feof($this->socket)) {
            $this->dropSocket(self::RETRY_S);
            return false;
        }
        return $this->giveUpIfLate($now);
    }

    private function giveUpIfLate(float $now): bool
    {
        if ($now >= $this->notBefore) {
            $this->dropSocket(0);
        }
        return false;
    }

    private function dropSocket(float $pause): void
    {
        if ($this->socket !== null) {
            @fclose($this->socket);
            $this->socket = null;
        }
        $this->notBefore = microtime(true) + $pause;
    }
}
