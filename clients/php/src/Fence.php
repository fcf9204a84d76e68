<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * A cache whose values are never older than the last invalidation of their key.
 *
 *     $fence = new Fence($redis, ['db' => $pdo, 'ttlMs' => 86_400_000]);
 *     $user = $fence->fetch("user:$id", fn () => loadUser($pdo, $id));
 *
 * $redis is the application's client: Redis or RedisCluster of the extension redis, a Predis
 * client, or a function that makes one.  Trouble with Redis never reaches the caller: the value
 * then comes from the database and is not stored.
 *
 * Options, in an array or as named arguments:
 *   db              PDO connection to PostgreSQL that the loads use, or a function that
 *                   returns it
 *   snapshot        instead of db: a function of a token that returns what
 *                   SELECT uncache.snapshot(token) gives (text or null) on the connection
 *                   that the loads use
 *   ttlMs           how long a value lives; an hour unless told
 *   leaseMs         for how long other readers of a key wait for the first one; 1000 unless
 *                   told, at most 60000; null: they don't wait
 *   redisTimeoutMs  how long a request waits for Redis, once; 50 unless told
 *   shadow          share of the hits that are compared with the database, such as 0.001
 *   encode, decode  a value to bytes and back; JSON unless told, which gives arrays
 *   onEvent         function (string $event, array $data): see Event
 *
 * A load runs on that connection, after the snapshot.  It must read the database and not the
 * memory of an ORM, and write nothing.  What it returns may be null, which is cached as well; it
 * is returned as it will come from the cache.
 */
final class Fence
{
    private Options $options;
    private Counters $counters;
    private Link $link;
    private Lookup $lookup;
    private Filler $filler;
    /** Inside of tags() without a nonce: what is read there must not be stored. */
    private bool $isMuted = false;

    public function __construct(object $redis, array $options = [], mixed ...$named)
    {
        $this->options = new Options($options + $named);
        $this->counters = Counters::shared($this->options->onEvent);
        $this->link = new Link($redis, $this->options->redisTimeoutMs, $this->counters);
        $this->lookup = new Lookup($this->link, $this->counters, $this->options->leaseMs);
        $this->filler = new Filler($this->link, $this->counters);
    }

    /**
     * The value of a key, from the cache or else by $load(key).
     *
     * @param ?int $ttlMs instead of the option
     */
    public function fetch(string $key, callable $load, ?int $ttlMs = null): mixed
    {
        $read = fn (?string $token) => [$this->snapshotOf($token), $load($key)];
        return $this->through($key, $read, $ttlMs);
    }

    /**
     * The rows of a query, as a list of arrays by column name.  One statement reads them and
     * the snapshot, so that the fence costs no round trip.
     *
     * @param array $params a list for the ?s of $sql, or an array by name
     */
    public function fetchSql(string $key, string $sql, array $params = [],
        ?int $ttlMs = null): array
    {
        $db = $this->db('fetchSql()');
        $read = function (?string $token) use ($db, $sql, $params) {
            if ($token !== null) {
                try {
                    [$rows, $snapshot] = $db->rowsAndSnapshot($sql, $params, $token);
                    return [$snapshot, $rows];
                } catch (\PDOException $e) {
                    $this->tolerate($db, $e);
                }
            }
            return [null, $db->rows($sql, $params)];
        };
        return $this->through($key, $read, $ttlMs);
    }

    /**
     * The value of a key, by $read(PDO) in a transaction that may not write: for loads of
     * several queries.
     */
    public function transaction(string $key, callable $read, ?int $ttlMs = null): mixed
    {
        $db = $this->db('transaction()');
        $inOne = function (?string $token) use ($db, $read) {
            [$value, $snapshot] = $db->readOnly($token, $read);
            return [$snapshot, $value];
        };
        return $this->through($key, $inOne, $ttlMs);
    }

    /**
     * The values of many keys, by key.  $loadMany(missing keys) returns an array by key; a key
     * that is not in it has the value null.
     *
     * @param list<string> $keys
     * @return array<string, mixed>
     */
    public function fetchMany(array $keys, callable $loadMany, ?int $ttlMs = null): array
    {
        $ttlMs = Options::milliseconds('ttlMs', $ttlMs ?? $this->options->ttlMs);
        $keys = array_values(array_unique(array_map('strval', $keys)));
        $found = $this->isMuted
            ? array_map(fn ($key) => Found::nothing($key, 'no tag'), array_combine($keys, $keys))
            : $this->lookup->many($keys, $this->decode(...));
        $values = $missing = [];
        foreach ($keys as $key) {
            if ($found[$key]->isHit) {
                $values[$key] = $this->hit($found[$key],
                    fn (?string $token) => [$this->snapshotOf($token),
                        $loadMany([$key])[$key] ?? null]);
            } else {
                $this->counters->note(Event::MISS, ['key' => $key]);
                $values[$key] = null;
                $missing[] = $found[$key];
            }
        }
        return $missing === [] ? $values
            : array_replace($values, $this->loadMissing($missing, $loadMany, $ttlMs));
    }

    /**
     * For what no row can name, such as page 3 of a list: $fetch(nonce) fetches it under a key
     * that contains the nonce.
     *
     *     $fence->tags(["gen:$shop"], fn ($nonce) =>
     *         $fence->fetch("list:$shop:$nonce:page3", $load));
     *
     * The tags are keys with rules.  When one is invalidated it gets a new nonce, and
     * the old pages are not found again.
     *
     * @param non-empty-list<string> $tags
     */
    public function tags(array $tags, callable $fetch): mixed
    {
        if ($tags === []) {
            throw new \InvalidArgumentException('tags() needs a tag');
        }
        $nonces = array_map(fn ($tag) => $this->isMuted ? null : $this->nonce($tag), $tags);
        $wasMuted = $this->isMuted;
        // A page whose nonce is not in Redis would not be found again.
        $this->isMuted = in_array(null, $nonces, true);
        try {
            return $fetch(match (true) {
                $this->isMuted => self::newNonce(),
                count($nonces) === 1 => $nonces[0],
                default => md5(implode($nonces)),
            });
        } finally {
            $this->isMuted = $wasMuted;
        }
    }

    /**
     * How often each event was counted: hit, miss, stored, refused, unfenced, waited.
     *
     * @return array<string, int>
     */
    public function counters(): array
    {
        return $this->counters->all();
    }

    /** @param callable(?string): array{?string, mixed} $read token to snapshot and value */
    private function through(string $key, callable $read, ?int $ttlMs): mixed
    {
        $ttlMs = Options::milliseconds('ttlMs', $ttlMs ?? $this->options->ttlMs);
        $found = $this->isMuted ? Found::nothing($key, 'no tag')
            : $this->lookup->one($key, $this->decode(...));
        if ($found->isHit) {
            return $this->hit($found, $read);
        }
        $this->counters->note(Event::MISS, ['key' => $key]);
        try {
            [$snapshot, $value] = $read($found->token);
            $bytes = $this->encode($key, $value);
            $snapshot = $this->confirmed([$found->token], [$snapshot])[0];
        } catch (\Throwable $e) {
            $this->filler->release($found);
            throw $e;
        }
        $this->filler->offer($found, $snapshot, $ttlMs, $bytes);
        return $this->decode($bytes);
    }

    /** @param non-empty-list<Found> $missing */
    private function loadMissing(array $missing, callable $loadMany, int $ttlMs): array
    {
        $keys = array_map(fn ($one) => $one->key, $missing);
        $tokens = array_map(fn ($one) => $one->token, $missing);
        $snapshots = $this->snapshotsOf($tokens);
        $loaded = $loadMany($keys);
        if (!is_array($loaded) || array_diff(array_keys($loaded), $keys) !== []) {
            throw new \UnexpectedValueException('the load of many keys must return an array by '
                . 'key, with none but the keys that it was given');
        }
        $bytes = array_map(fn ($key) => $this->encode($key, $loaded[$key] ?? null), $keys);
        $snapshots = $this->confirmed($tokens, $snapshots);
        $this->filler->offerMany(array_map(null, $missing, $snapshots,
            array_fill(0, count($keys), $ttlMs), $bytes));
        return array_combine($keys, array_map($this->decode(...), $bytes));
    }

    private function hit(Found $found, callable $read): mixed
    {
        $this->counters->note(Event::HIT, ['key' => $found->key]);
        if ($this->options->shadow > 0 && mt_rand() / mt_getrandmax() < $this->options->shadow) {
            (new Shadow($this->link, $this->counters, $this->options->db))->check($found,
                fn (string $token) => self::withBytes($read($token),
                    fn ($value) => $this->encode($found->key, $value)),
                $this->encode($found->key, $found->value));
        }
        return $found->value;
    }

    private static function withBytes(array $read, callable $encode): array
    {
        return [$read[0], $encode($read[1])];
    }

    /** The nonce of a tag that is in Redis; null where none is. */
    private function nonce(string $tag): ?string
    {
        $found = $this->lookup->one($tag, function (string $bytes) {
            if (!preg_match('/^[0-9a-f]{32}$/D', $bytes)) {
                throw new \UnexpectedValueException('not a nonce');
            }
            return $bytes;
        });
        if ($found->isHit || $found->token === null) {
            return $found->value;
        }
        $nonce = self::newNonce();
        $snapshot = $this->snapshotOf($found->token);
        return $this->filler->offer($found, $snapshot, $this->options->ttlMs, $nonce)
            ? $nonce : null;
    }

    private static function newNonce(): string
    {
        return bin2hex(random_bytes(16));
    }

    private function snapshotOf(?string $token): ?string
    {
        return $this->snapshotsOf([$token])[0];
    }

    /**
     * @param list<?string> $tokens
     * @return list<?string>
     */
    private function snapshotsOf(array $tokens): array
    {
        $asked = array_filter($tokens, fn ($token) => $token !== null);
        $snapshots = array_fill(0, count($tokens), null);
        if ($asked === []) {
            return $snapshots;
        }
        if ($this->options->db === null) {
            return array_replace($snapshots, array_map($this->options->snapshot, $asked));
        }
        try {
            return array_replace($snapshots, array_combine(array_keys($asked),
                $this->options->db->snapshots(array_values($asked))));
        } catch (\PDOException $e) {
            $this->tolerate($this->options->db, $e);
            return $snapshots;
        }
    }

    /**
     * The snapshots, if the transaction has not written meanwhile: then the load may have read
     * what will be rolled back.  Outside of a transaction each statement has committed.
     */
    private function confirmed(array $tokens, array $snapshots): array
    {
        if (array_filter($snapshots) === []
                || ($this->options->db !== null && !$this->options->db->isInTransaction())) {
            return $snapshots;
        }
        $now = $this->snapshotsOf($tokens);
        return array_map(fn ($first, $second) => $second === null ? null : $first, $snapshots,
            $now);
    }

    /** Where pg_uncache is not in this database the application goes on without a cache. */
    private function tolerate(Database $db, \PDOException $e): void
    {
        if (!$db->isTolerable($e)) {
            throw $e;
        }
        $this->counters->note(Event::ERROR, ['message' => $e->getMessage()]);
    }

    private function db(string $caller): Database
    {
        return $this->options->db
            ?? throw new \LogicException("$caller needs the option db, a PDO connection");
    }

    private function encode(string $key, mixed $value): string
    {
        try {
            $bytes = ($this->options->encode)($value);
        } catch (\JsonException $e) {
            throw new \UnexpectedValueException("the value of $key can't be encoded as JSON ("
                . $e->getMessage() . '): give the fence encode and decode', 0, $e);
        }
        if (!is_string($bytes)) {
            throw new \UnexpectedValueException('encode must return a string, not '
                . get_debug_type($bytes) . " for $key");
        }
        return $this->link->pack($bytes);
    }

    private function decode(string $bytes): mixed
    {
        return ($this->options->decode)($this->link->unpack($bytes));
    }
}
