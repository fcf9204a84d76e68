<?php

declare(strict_types=1);

// A Redis that hangs or is gone costs one bounded wait, then nothing, and is used again.

use PgUncache\Event;
use PgUncache\Fence;

require_once __DIR__ . '/laravel.php';

$pdo = pdo();
freshTable($pdo, 'outage', 'o:{id}', 'laravel_database_laravel_cache:user:{id}');
$load = fn () => ask($pdo, 'SELECT name FROM outage WHERE id = 1');
$events = [];
$count = function (string $event) use (&$events) {
    $events[$event] = ($events[$event] ?? 0) + 1;
};

/** Many calls, while Redis does not answer: what the first and what the others took, in ms. */
function outage(callable $call): array
{
    $first = took($call);
    $others = took(function () use ($call) {
        for ($i = 0; $i < 100; $i++) {
            $call();
        }
    });
    return [$first, $others];
}

// Longer than the package's 50 ms, which a busy machine may exceed without an outage.
const LIMIT = ['redisTimeoutMs' => 300];

$app = laravel('phpredis', LIMIT + ['onEvent' => $count]);
$laravel = $app['cache']->store('users');
foreach ([
    'phpredis' => redis(),
    'predis' => predis(),
    'a function' => redis(...),
    'a function that returns the same client' => (fn ($one) => fn () => $one)(redis()),
    'Laravel' => null,
] as $name => $client) {
    $events = [];
    $fence = $client === null ? null : new Fence($client, LIMIT + ['db' => $pdo,
        'onEvent' => $count]);
    $call = fn () => $fence === null ? $laravel->remember('user:1', 60, $load)
        : $fence->fetch('o:1', $load);
    $call();
    is($events[Event::STORED] ?? 0, 1, "$name: stores before the outage");
    stopRedis();
    [$first, $others] = outage(function () use ($call, &$isRight) {
        $isRight = $call() === 'first';
    });
    ok($isRight, '... serves the value while Redis hangs');
    is($events[Event::AWAY] ?? 0, 1, '... having waited for it once');
    ok($first < 5_000, sprintf('... within a limit (%.0f ms)', $first));
    ok($others < 10_000, sprintf('... and no more after that (%.2f ms a call)', $others / 100));
    continueRedis();
    $hits = $events[Event::HIT] ?? 0;
    ok(await(function () use ($call, &$events, $hits) {
        $call();
        return ($events[Event::HIT] ?? 0) > $hits;
    }), '... and hits again once Redis goes on');
    is($events[Event::BACK] ?? 0, 1, '... which onEvent is told');
    $before = redis()->dbSize();
    ask($pdo, "SELECT uncache.invalidate_keys('o:1', 'laravel_database_laravel_cache:user:1'), "
        . 'uncache.wait()');
    $stored = $events[Event::STORED];
    $call();
    is($events[Event::STORED], $stored + 1, '... and stores again, in its own database');
    ask($pdo, "SELECT uncache.invalidate_keys('o:1', 'laravel_database_laravel_cache:user:1'), "
        . 'uncache.wait()');
}

// A process that is gone, and comes back at the same port.
$probe = stream_socket_server('tcp://127.0.0.1:0');
$port = (int) substr(strrchr(stream_socket_get_name($probe, false), ':'), 1);
fclose($probe);
$start = function () use ($port) {
    $process = proc_open(['redis-server', '--bind', '127.0.0.1', '--port', (string) $port, '--save',
        '', '--databases', '4'], [1 => ['file', '/dev/null', 'w']], $pipes, env('WORK'));
    await(function () use ($port) {
        $redis = new Redis();
        try {
            return @$redis->connect('127.0.0.1', $port, 0.5) && $redis->ping();
        } catch (RedisException) {
            return false;
        }
    });
    return $process;
};
$stop = function ($process) {
    proc_terminate($process, SIGKILL);
    await(fn () => !proc_get_status($process)['running']);
};
$connect = function () use ($port) {
    $redis = new Redis();
    $redis->connect('127.0.0.1', $port, 0.5);
    $redis->select(2);
    return $redis;
};
foreach (['phpredis' => $connect, 'predis' => fn () => new Predis\Client(['host' => '127.0.0.1',
    'port' => $port, 'database' => 2])] as $name => $make) {
    $server = $start();
    $events = [];
    $fence = new Fence($make(), LIMIT + ['db' => $pdo, 'onEvent' => $count]);
    $connect()->set('o:1', '"cached"');
    is($fence->fetch('o:1', $load), 'cached', "$name: a hit before the process is killed");
    $stop($server);
    [$first, $others] = outage(function () use ($fence, $load, &$value) {
        $value = $fence->fetch('o:1', $load);
    });
    is($value, 'first', '... then the database serves');
    is($events[Event::AWAY] ?? 0, 1, '... and one command was tried');
    ok($first < 5_000 && $others < 10_000,
        sprintf('... which costs little (%.1f ms, then %.2f)', $first, $others / 100));
    $server = $start();
    $connect()->set('o:1', '"cached"');
    ok(await(fn () => $fence->fetch('o:1', $load) === 'cached'),
        '... and it is used again, in the same database, once it is back');
    $stop($server);
}

// Never there at all: a client that can't be made.
$events = [];
$fence = new Fence($connect, LIMIT + ['db' => $pdo, 'onEvent' => $count]);
[$first, $others] = outage(function () use ($fence, $load, &$value) {
    $value = $fence->fetch('o:1', $load);
});
is($value, 'first', 'a Redis that was never there: the database serves');
ok(($events[Event::AWAY] ?? 0) >= 1 && $others < 10_000, '... and nothing waits for it');
$server = $start();
$connect()->set('o:1', '"cached"');
ok(await(fn () => $fence->fetch('o:1', $load) === 'cached'), '... until it comes');
$stop($server);

// One master of a Cluster hangs: what is cached of its keys comes from the database, and of the
// others from Redis.
$clusterPort = (int) env('REDIS_CLUSTER_PORT');
$db = pdo('PGPORT', env('PGDATABASE') . '_cluster');
freshTable($db, 'outage', 'o:{id}');
$master = new Redis();
$master->connect('127.0.0.1', $clusterPort);
$pid = (int) $master->info('server')['process_id'];
$slots = array_filter($master->rawCommand('CLUSTER', 'SLOTS'),
                      fn ($one) => $one[2][1] === $clusterPort);
$isIts = function (string $key) use ($master, $slots): bool {
    $slot = $master->rawCommand('CLUSTER', 'KEYSLOT', $key);
    return array_filter($slots, fn ($one) => $one[0] <= $slot && $slot <= $one[1]) !== [];
};
$keys = array_map(fn ($id) => "o:$id", range(1, 40));
$its = array_values(array_filter($keys, $isIts));
$others = array_values(array_diff($keys, $its));
foreach ([
    'phpredis' => fn () => new RedisCluster(null, ["127.0.0.1:$clusterPort"], 0.3, 0.3),
    'predis' => fn () => new Predis\Client([['host' => '127.0.0.1', 'port' => $clusterPort,
        'timeout' => 0.3, 'read_write_timeout' => 0.3]], ['cluster' => 'redis',
        'parameters' => ['timeout' => 0.3, 'read_write_timeout' => 0.3]]),
] as $name => $make) {
    $events = [];
    $fence = new Fence($make(), LIMIT + ['db' => $db, 'onEvent' => $count]);
    foreach ($keys as $key) {
        $fence->fetch($key, fn () => $key);
    }
    posix_kill($pid, SIGSTOP);
    $wrong = 0;
    $ms = took(function () use ($fence, $its, &$wrong) {
        foreach ($its as $key) {
            $wrong += $fence->fetch($key, fn () => $key) === $key ? 0 : 1;
        }
    });
    is($wrong, 0, "$name, Cluster: keys of a master that hangs are served");
    is($events[Event::AWAY] ?? 0, 1, '... having waited for it once');
    ok($ms < 10_000, sprintf('... within a limit (%.0f ms)', $ms));
    $events[Event::HIT] = 0;
    foreach ($others as $key) {
        $wrong += $fence->fetch($key, fn () => $key) === $key ? 0 : 1;
    }
    $fence->fetchMany($keys, fn ($missing) => array_combine($missing, $missing));
    is($events[Event::HIT], 2 * count($others), '... and those of other masters from Redis');
    posix_kill($pid, SIGCONT);
    ok(await(function () use ($fence, $keys, &$events, &$wrong) {
        $hits = $events[Event::HIT] ?? 0;
        foreach ($keys as $key) {
            $wrong += $fence->fetch($key, fn () => $key) === $key ? 0 : 1;
        }
        return ($events[Event::HIT] ?? 0) === $hits + count($keys);
    }), '... and all are hits again once it goes on');
    is($wrong, 0, '... and no key got the value of another one');
}
