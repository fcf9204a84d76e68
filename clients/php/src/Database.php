<?php

declare(strict_types=1);

namespace PgUncache;

/**
 * What the package asks PostgreSQL, through the PDO connection of the application.
 *
 * Statements are sent without a name (PGSQL_ATTR_DISABLE_PREPARES), so they take one round
 * trip and work behind a pooler.
 */
final class Database
{
    /** No schema uncache, no function of that name, no right to it. */
    private const MISSING = ['3F000', '42883', '42501'];
    /** Current transaction is aborted. */
    private const FAILED_BEFORE = '25P02';

    /** @param \Closure(): \PDO $pdo the connection that the loads use, too */
    private function __construct(private \Closure $pdo)
    {
    }

    /** @param \PDO|\Closure $db a connection, or a function that returns it */
    public static function of(mixed $db): self
    {
        if (!$db instanceof \PDO && !$db instanceof \Closure) {
            throw new \InvalidArgumentException('db must be a PDO connection to PostgreSQL, or a '
                . 'function that returns one, not ' . get_debug_type($db));
        }
        return new self($db instanceof \PDO ? fn () => $db : $db);
    }

    public function pdo(): \PDO
    {
        $pdo = ($this->pdo)();
        if (!$pdo instanceof \PDO) {
            throw new \InvalidArgumentException('db must return a PDO connection, not '
                . get_debug_type($pdo));
        }
        return $pdo;
    }

    public function isInTransaction(): bool
    {
        return $this->pdo()->inTransaction();
    }

    /**
     * @param list<string> $tokens
     * @return list<?string> in their order; null where nothing may be stored
     */
    public function snapshots(array $tokens): array
    {
        // A token has no character that an array's text would need quotes for.
        $row = $this->row('SELECT to_json(uncache.snapshot(?::text[])) AS snapshots',
            ['{' . implode(',', $tokens) . '}']);
        return json_decode($row['snapshots'], true, 512, JSON_THROW_ON_ERROR);
    }

    /**
     * Like snapshots(), and which transaction block it is of: the server process and when
     * the block began; null outside of one.
     *
     * @param list<string> $tokens
     * @return array{list<?string>, ?string}
     */
    public function snapshotsAndBlock(array $tokens): array
    {
        $isInBlock = $this->isInTransaction();
        $row = $this->row('SELECT to_json(uncache.snapshot(?::text[])) AS snapshots, '
            . "pg_backend_pid() || ' ' || extract(epoch FROM now()) AS block",
            ['{' . implode(',', $tokens) . '}']);
        return [json_decode($row['snapshots'], true, 512, JSON_THROW_ON_ERROR),
            $isInBlock ? $row['block'] : null];
    }

    public function wait(): bool
    {
        return (bool) $this->row('SELECT uncache.wait() AS delivered', [])['delivered'];
    }

    /**
     * The rows of a query, and the snapshot, by one statement.
     *
     * @return array{list<array<string, mixed>>, ?string}
     */
    public function rowsAndSnapshot(string $sql, array $params, string $token): array
    {
        $sql = rtrim($sql, "; \t\r\n");
        [$mark, $params] = array_is_list($params)
            ? ['?', [$token, ...$params]]
            : [':uncache_token', ['uncache_token' => $token] + $params];
        $rows = $this->rows("SELECT q.*, s.uncache_snapshot
            FROM (SELECT uncache.snapshot($mark::text) AS uncache_snapshot) s
            LEFT JOIN LATERAL (SELECT true AS uncache_row, t.* FROM (\n$sql\n) t) q ON true",
            $params);
        $snapshot = $rows[0]['uncache_snapshot'];
        $rows = array_filter($rows, fn ($row) => $row['uncache_row'] !== null);
        return [self::withoutOwn(array_values($rows)), $snapshot];
    }

    /** @return list<array<string, mixed>> */
    public function rows(string $sql, array $params): array
    {
        $statement = $this->pdo()->prepare($sql, [\PDO::PGSQL_ATTR_DISABLE_PREPARES => true,
            \PDO::ATTR_EMULATE_PREPARES => false]);
        foreach ($params as $name => $value) {
            $statement->bindValue(is_int($name) ? $name + 1 : $name, $value, match (true) {
                $value === null => \PDO::PARAM_NULL,
                is_bool($value) => \PDO::PARAM_BOOL,
                is_int($value) => \PDO::PARAM_INT,
                default => \PDO::PARAM_STR,
            });
        }
        $statement->execute();
        return $statement->fetchAll(\PDO::FETCH_ASSOC);
    }

    /** Run $read in a transaction that may not write, and whose first statement is the snapshot. */
    public function readOnly(?string $token, callable $read): array
    {
        $pdo = $this->pdo();
        if ($pdo->inTransaction()) {
            throw new \LogicException('transaction() begins a transaction of its own, and the '
                . 'connection is inside one: call it before, or use fetch()');
        }
        $pdo->exec('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
        try {
            $snapshot = $token === null ? null : $this->snapshots([$token])[0];
            $value = $read($pdo);
            $pdo->exec('COMMIT');
            return [$value, $snapshot];
        } catch (\Throwable $e) {
            try {
                $pdo->exec('ROLLBACK');
            } catch (\PDOException) {
                // The connection is gone, and with it the transaction.
            }
            throw $e;
        }
    }

    /**
     * Whether an error of a snapshot is none of the application's: pg_uncache is not there, or
     * the transaction had failed before.
     */
    public function isTolerable(\PDOException $e): bool
    {
        return $e->getCode() === self::FAILED_BEFORE || in_array($e->getCode(), self::MISSING, true)
            && preg_match('/uncache|snapshot/', $e->getMessage()) && !$this->isInTransaction();
    }

    private function row(string $sql, array $params): array
    {
        return $this->rows($sql, $params)[0];
    }

    private static function withoutOwn(array $rows): array
    {
        foreach ($rows as &$row) {
            unset($row['uncache_row'], $row['uncache_snapshot']);
        }
        return $rows;
    }
}
