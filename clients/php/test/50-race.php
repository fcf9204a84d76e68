<?php

declare(strict_types=1);

// Fifty sessions read and write ten keys.  A read is stale if its value is older than what had been
// committed, and delivered, before the read began.

use PgUncache\Fence;
use PgUncache\SimpleCache;

require_once __DIR__ . '/laravel.php';

const RACE_KEYS = 10;

/** The oracle: versions that no read may be behind, in a database of Redis of its own. */
function floors(): Redis
{
    $redis = redis();
    $redis->select(15);
    return $redis;
}

function raceWriter(int $id, float $until): array
{
    $pdo = pdo();
    $floors = floors();
    $writes = 0;
    while (microtime(true) < $until) {
        $version = ask($pdo, 'UPDATE race SET version = version + 1 WHERE id = ? RETURNING version',
            [$id]);
        if (ask($pdo, 'SELECT uncache.wait()')) {
            $floors->set("floor:$id", $version);
            $writes++;
        }
        usleep(random_int(2_000, 20_000));
    }
    return ['writes' => $writes];
}

/** Readers of a kind: a function of the row's number that returns its version. */
function raceReader(string $kind, int $number): Closure
{
    $pdo = pdo($kind === 'pgbouncer' ? 'PGBOUNCER_PORT' : 'PGPORT');
    $read = function (int $id) use ($pdo) {
        $version = (int) ask($pdo, 'SELECT version FROM race WHERE id = ?', [$id]);
        // A reader that is slower than a writer.
        usleep(random_int(0, 3) === 0 ? random_int(0, 15_000) : 0);
        return $version;
    };
    $redis = $number % 2 ? redis() : predis();
    $fence = new Fence($redis, PATIENT + ['db' => $pdo, 'leaseMs' => $number % 3 ? 1000 : null]);
    if ($kind === 'plain') {
        return function (int $id) use ($redis, $read) {
            $hit = $redis->get("race:$id");
            if (is_string($hit)) {
                return (int) $hit;
            }
            $version = $read($id);
            $redis->set("race:$id", (string) $version);
            return $version;
        };
    }
    if ($kind === 'repeatable read') {
        return function (int $id) use ($fence, $pdo, $read) {
            $pdo->exec('BEGIN ISOLATION LEVEL REPEATABLE READ');
            $pdo->exec('SELECT 1');
            $version = $fence->fetch("race:$id", fn () => $read($id));
            $pdo->exec('COMMIT');
            return $version;
        };
    }
    if ($kind === 'laravel') {
        $app = laravel($number % 2 ? 'phpredis' : 'predis', ['fenced' => ['race:']], '');
        $laravelRead = function (int $id) use ($app) {
            $version = $app['db']->connection()->table('race')->where('id', $id)->value('version');
            usleep(random_int(0, 3) === 0 ? random_int(0, 15_000) : 0);
            return $version;
        };
        return fn (int $id) => (int) $app['cache']->store('users')->remember("race:$id", 60,
            fn () => $laravelRead($id));
    }
    if ($kind === 'psr-16') {
        $cache = new SimpleCache($redis, PATIENT + ['db' => $pdo, 'fenced' => ['psr:']]);
        return function (int $id) use ($cache, $read) {
            $version = $cache->get("psr:$id");
            if ($version === null) {
                $cache->set("psr:$id", $version = $read($id), 60);
            }
            return $version;
        };
    }
    return match ($kind) {
        'many' => fn (int $id) => $fence->fetchMany(["race:$id", 'race:1'],
            function ($keys) use ($read) {
            foreach ($keys as $key) {
                $values[$key] = $read((int) substr($key, 5));
            }
            return $values;
        })["race:$id"],
        'sql' => fn (int $id) => (int) $fence->fetchSql("sql:$id",
            'SELECT version, pg_sleep(0.002) FROM race WHERE id = ?', [$id])[0]['version'],
        'transaction' => fn (int $id) => $fence->transaction("race:$id", fn () => $read($id)),
        'tags' => fn (int $id) => $fence->tags(["gen:$id"],
            fn ($nonce) => $fence->fetch("page:$id:$nonce", fn () => $read($id))),
        'tags, repeatable read' => function (int $id) use ($fence, $pdo, $read) {
            $pdo->exec('BEGIN ISOLATION LEVEL REPEATABLE READ');
            $pdo->exec('SELECT 1');
            $version = $fence->tags(["gen:$id"],
                fn ($nonce) => $fence->fetch("page:$id:$nonce", fn () => $read($id)));
            $pdo->exec('COMMIT');
            return $version;
        },
        default => fn (int $id) => $fence->fetch("race:$id", fn () => $read($id)),
    };
}

function raceLoop(string $kind, int $number, float $until): array
{
    $floors = floors();
    $reader = raceReader($kind, $number);
    $counts = ['reads' => 0, 'stale' => 0];
    while (microtime(true) < $until) {
        $id = random_int(1, RACE_KEYS);
        $floor = (int) $floors->get("floor:$id");
        $version = $reader($id);
        $counts['reads']++;
        $counts['stale'] += $version < $floor ? 1 : 0;
    }
    return $counts;
}

/**
 * @param array<int, string> $kinds one for each reader
 * @return array{array<string, int>, int, list<string>} stale by kind, reads, what broke
 */
function race(array $kinds, float $seconds): array
{
    $until = microtime(true) + $seconds;
    $children = [];
    foreach ([...$kinds, ...array_fill(0, RACE_KEYS, 'writer')] as $number => $kind) {
        $file = env('WORK') . "/race.$number";
        $pid = pcntl_fork();
        if ($pid === 0) {
            try {
                $result = $kind === 'writer' ? raceWriter($number - count($kinds) + 1, $until)
                    : raceLoop($kind, $number, $until);
            } catch (Throwable $e) {
                $result = ['error' => get_class($e) . ': ' . $e->getMessage() . ' at '
                    . basename($e->getFile()) . ':' . $e->getLine()];
            }
            file_put_contents($file, json_encode($result + ['kind' => $kind]));
            // Without the parent's shutdown functions.
            posix_kill(getmypid(), SIGKILL);
        }
        $children[$pid] = $file;
    }
    $stale = $errors = [];
    $reads = 0;
    foreach ($children as $pid => $file) {
        pcntl_waitpid($pid, $status);
        $result = json_decode(@file_get_contents($file) ?: '{"error":"no result"}', true);
        @unlink($file);
        if (isset($result['error'])) {
            $errors[] = $result['error'];
        } elseif ($result['kind'] !== 'writer') {
            $stale[$result['kind']] = ($stale[$result['kind']] ?? 0) + $result['stale'];
            $reads += $result['reads'];
        }
    }
    return [$stale, $reads, $errors];
}

$pdo = pdo();
$pdo->exec('DROP TABLE IF EXISTS race');
$pdo->exec('CREATE TABLE race (id int PRIMARY KEY, version int NOT NULL)');
$pdo->exec('INSERT INTO race SELECT i, 1 FROM generate_series(1, ' . RACE_KEYS . ') i');
ask($pdo, "SELECT uncache.attach('race', 'race:{id}', 'psr:{id}', 'sql:{id}', 'gen:{id}',
    'laravel_cache:race:{id}')");
$seconds = (float) env('RACE_SECONDS');

floors()->flushDB();
[$stale, $reads, $errors] = race(array_fill(0, 40, 'plain'), min($seconds, 5));
is($errors, [], 'plain readers: none breaks');
ok(($stale['plain'] ?? 0) > 0, "... and stale reads are found ($stale[plain] of $reads)");

ask($pdo, "SELECT uncache.invalidate_table('race'), uncache.wait()");
$kinds = ['fetch', 'many', 'sql', 'transaction', 'tags', 'tags, repeatable read', 'repeatable read',
    'laravel', 'psr-16', 'pgbouncer'];
[$stale, $reads, $errors] = race([...$kinds, ...$kinds, ...$kinds, ...$kinds], $seconds);
is($errors, [], 'fenced readers: none breaks');
foreach ($kinds as $kind) {
    is($stale[$kind] ?? null, 0, "... no stale read by $kind");
}
note("$reads reads");
floors()->flushDB();
