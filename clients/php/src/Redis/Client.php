<?php

declare(strict_types=1);

namespace PgUncache\Redis;

/**
 * What the package asks of a Redis client: raw commands, each with the key that says where it
 * goes in a Cluster.
 *
 * A nil is null in what these return, also inside an array.  Trouble with the connection is a
 * ConnectionLost, and the implementation has closed the connection then: a reply that comes
 * late would otherwise be taken for the one of the next command.  An error reply is a Refusal.
 */
interface Client
{
    /** Run one command.  $key: as Redis spells it, with the prefix. */
    public function call(string $key, string ...$command): mixed;

    /**
     * Run several commands of one node, in one round trip where the client can.
     *
     * @param list<array{string, list<string>}> $commands each a key and a command
     * @return list<mixed> replies in their order; null also where one was an error
     */
    public function calls(array $commands): array;

    /**
     * @param list<string> $keys of one node
     * @return list<?string>
     */
    public function mget(array $keys): array;

    /** Which node of a Cluster a key belongs to, as far as is known; '' of a single server. */
    public function nodeOf(string $key): string;

    /** What the client puts before every key. */
    public function prefix(): string;

    /** For stream_socket_client(), tcp:// or unix://; null where there are several servers. */
    public function address(): ?string;

    /** Whether that address wants TLS. */
    public function isTls(): bool;

    /** The bytes that the client itself would store for a value, and the way back. */
    public function pack(string $value): string;

    public function unpack(string $bytes): mixed;
}
