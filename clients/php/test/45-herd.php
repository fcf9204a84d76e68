<?php

declare(strict_types=1);

// A herd: 200 sessions ask for one key at once, after it was invalidated.  With the lease one
// of them asks the database.

use PgUncache\Fence;

const HERD = 200;

/**
 * What one session does: connect, wait for the start, fetch, and write down how long it took.
 */
function herdMember(?int $leaseMs, string $file): void
{
    $pdo = pdo();
    $redis = redis();
    $counter = redis();
    $counter->select(15);
    $fence = new Fence($redis, PATIENT + ['db' => $pdo, 'leaseMs' => $leaseMs]);
    $redis->get('warm');
    $counter->incr('herd:ready');
    await(fn () => $counter->exists('herd:go') === 1, 60);
    $ms = took(function () use ($fence, $pdo, $counter, &$value) {
        $value = $fence->fetch('herd:1', function () use ($pdo, $counter) {
            $counter->incr('herd:loads');
            return ask($pdo, 'SELECT name FROM herd, pg_sleep(0.05) WHERE id = 1');
        });
    });
    file_put_contents($file, json_encode(['value' => $value, 'ms' => $ms]));
}

/** @return array{int, array<string>, float} loads, values, 99th percentile in ms */
function herd(PDO $pdo, ?int $leaseMs): array
{
    $counter = redis();
    $counter->select(15);
    $counter->flushDB();
    ask($pdo, "SELECT uncache.invalidate_keys('herd:1'), uncache.wait()");
    $children = [];
    for ($i = 0; $i < HERD; $i++) {
        $file = env('WORK') . "/herd.$i";
        $pid = pcntl_fork();
        if ($pid === 0) {
            try {
                herdMember($leaseMs, $file);
            } catch (Throwable $e) {
                file_put_contents($file, json_encode(['value' => $e->getMessage(), 'ms' => 0]));
            }
            posix_kill(getmypid(), SIGKILL);
        }
        $children[$pid] = $file;
    }
    await(fn () => (int) $counter->get('herd:ready') === HERD, 60);
    $counter->set('herd:go', '1');
    $values = $times = [];
    foreach ($children as $pid => $file) {
        pcntl_waitpid($pid, $status);
        $result = json_decode(@file_get_contents($file) ?: '{"value":"no result","ms":0}', true);
        $values[$result['value']] = true;
        $times[] = $result['ms'];
        @unlink($file);
    }
    sort($times);
    return [(int) $counter->get('herd:loads'), array_keys($values),
        $times[(int) (HERD * 0.99) - 1]];
}

$reply = redis()->rawCommand('FCALL', 'uncache_get', '1', 'herd:lease', '1000');
if (!is_array($reply)) {
    skip('a herd asks the database at most twice', 'no leases in these functions');
    return;
}
$pdo = pdo();
freshTable($pdo, 'herd', 'herd:{id}');

// Connections that were made before a fork must not be used after it.
unset($pdo);
[$without, $values, $p99] = herd(pdo(), null);
is($values, ['first'], HERD . ' sessions without a lease: all get the value');
note(sprintf('%d queries, p99 %.0f ms', $without, $p99));
[$with, $values, $p99] = herd(pdo(), 20_000);
is($values, ['first'], '... and with one');
ok($with <= 2, "... which makes of $without queries at most 2 ($with)");
note(sprintf('%d queries, p99 %.0f ms', $with, $p99));

// The one that fills is killed.
$pdo = pdo();
ask($pdo, "SELECT uncache.invalidate_keys('herd:1'), uncache.wait()");
unset($pdo);
$pid = pcntl_fork();
if ($pid === 0) {
    (new Fence(redis(), PATIENT + ['db' => pdo(), 'leaseMs' => 500]))->fetch('herd:1', function () {
        $counter = redis();
        $counter->select(15);
        $counter->set('herd:filling', '1');
        sleep(600);
    });
}
$counter = redis();
$counter->select(15);
ok(await(fn () => $counter->exists('herd:filling') === 1), 'one session fills');
posix_kill($pid, SIGKILL);
pcntl_waitpid($pid, $status);
$fence = new Fence(redis(), PATIENT + ['db' => pdo(), 'leaseMs' => 500]);
$ms = took(function () use ($fence, &$value) {
    $value = $fence->fetch('herd:1', fn () => 'mine');
});
is($value, 'mine', '... is killed, and another one goes on');
ok($ms < 5_000, sprintf('... once the lease is over (%.0f ms)', $ms));
is(array_intersect_key($fence->counters(), ['waited' => 1, 'stored' => 1]),
    ['stored' => 1, 'waited' => 1], '... having waited, and stores');

// A filler that will not store, or whose load fails, gives the lease back.
$other = new Fence(redis(), PATIENT + ['db' => pdo(), 'leaseMs' => 30_000]);
ask(pdo(), "SELECT uncache.invalidate_keys('herd:1'), uncache.wait()");
try {
    $other->fetch('herd:1', fn () => throw new LogicException('no'));
} catch (LogicException) {
}
ok(took(fn () => $fence->fetch('herd:1', fn () => 1)) < 10_000,
    'a load that fails gives the lease back');
ask(pdo(), "SELECT uncache.invalidate_keys('herd:1'), uncache.wait()");
$own = pdo();
$own->beginTransaction();
$own->exec("INSERT INTO herd VALUES (50, 'x')");
(new Fence(redis(), PATIENT + ['db' => $own, 'leaseMs' => 30_000]))->fetch('herd:1', fn () => 1);
ok(took(fn () => $other->fetch('herd:1', fn () => 1)) < 10_000,
    '... and so does a transaction that has written');
is($other->counters()['waited'], 0, '... at once');
$own->rollBack();
$counter->flushDB();
