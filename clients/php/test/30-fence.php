<?php

declare(strict_types=1);

// Fence with each Redis client, one server and a Cluster; prefixes, serializers, databases.

use PgUncache\Event;
use PgUncache\Fence;

$pdo = pdo();
$writer = pdo();
freshTable($pdo, 'fenced', 'f:{id}', 'app:f:{id}', 'f:gen');
$load = fn (int $id) => fn () => ask($pdo, 'SELECT name FROM fenced WHERE id = ?', [$id]);
$no = fn () => throw new LogicException('loaded, and should not have been');
$invalidate = fn (string ...$keys) => ask($writer,
    'SELECT uncache.invalidate_keys(VARIADIC ?::text[]), '
    . 'uncache.wait()', ['{' . implode(',', $keys) . '}']);
$prefixed = function () {
    $redis = redis();
    $redis->setOption(Redis::OPT_PREFIX, 'app:');
    return $redis;
};
$packed = function () {
    $redis = redis();
    $redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
    return $redis;
};

foreach ([
    'phpredis' => [redis(), 'f:1'],
    'predis' => [predis(), 'f:1'],
    'a function that makes phpredis' => [redis(...), 'f:1'],
    'phpredis with a prefix' => [$prefixed(), 'app:f:1'],
    'predis with a prefix' => [predis(['prefix' => 'app:']), 'app:f:1'],
    'phpredis with a serializer' => [$packed(), 'f:1'],
] as $name => [$client, $stored]) {
    $invalidate('f:1', 'f:2', 'f:3', 'app:f:1', 'app:f:2', 'app:f:3', 'f:gen', 'app:f:gen');
    $fence = new Fence($client, PATIENT + ['db' => $pdo, 'ttlMs' => 60_000]);
    is($fence->fetch('f:1', $load(1)), 'first', "$name: a miss loads");
    ok(redis()->exists($stored) === 1, '... and stores under the name that Redis sees');
    is($fence->fetch('f:1', $no), 'first', '... and is a hit then');
    if ($client instanceof Redis) {
        $plain = $client->get('f:1');
        is($plain, '"first"', '... which a plain get() of the same client finds');
    }
    $many = $fence->fetchMany(['f:1', 'f:2', 'f:3'], function (array $keys) use ($pdo) {
        is($keys, ['f:2', 'f:3'], '... a load of many gets the missing keys');
        return ['f:3' => 'third', 'f:2' => 'second'];
    });
    is($many, ['f:1' => 'first', 'f:2' => 'second', 'f:3' => 'third'],
        '... and the values come in the order of the keys');
    is($fence->fetchMany(['f:3', 'f:2'], $no), ['f:3' => 'third', 'f:2' => 'second'],
        '... and all are hits then');
    is($fence->tags(['f:gen'], fn ($nonce) => $fence->fetch("f:page:$nonce", fn () => 'page')),
        'page', '... a page below a tag is loaded');
    is($fence->tags(['f:gen'], fn ($nonce) => $fence->fetch("f:page:$nonce", $no)), 'page',
        '... and found');
    is(array_intersect_key($fence->counters(), ['hit' => 0, 'refused' => 0, 'unfenced' => 0]),
        ['hit' => 5, 'refused' => 0, 'unfenced' => 0], '... and the counters say so');
}

// The client's other commands keep their time limit, and a client in multi() is left alone.
$redis = redis();
$fence = new Fence($redis, PATIENT + ['db' => $pdo]);
$fence->fetch('f:1', $load(1));
is($redis->getOption(Redis::OPT_READ_TIMEOUT), (float) ini_get('default_socket_timeout'),
    "a client's other commands keep their time limit");
$redis->multi();
is($fence->fetch('f:1', $load(1)), 'first', 'inside multi() the value comes from the database');
$redis->set('f:multi', '1');
is($redis->exec(), [true], '... and the commands of multi() are those of the application');

// What loads return.
$invalidate('f:1', 'f:2');
is($fence->fetch('f:1', fn () => (object) ['a' => 1]), ['a' => 1],
    'a value is returned as it will come from the cache');
is($fence->fetch('f:1', $no), ['a' => 1], '... and comes so');
fails(fn () => $fence->fetch('f:2', fn () => "\xff"), UnexpectedValueException::class,
    'give the fence encode and decode',
        'a value that JSON can not hold is an error with a way out');
ok(!redis()->exists('f:2'), '... and nothing is stored');
fails(fn () => $fence->fetchMany(['f:2'], fn () => ['one', 'two']), UnexpectedValueException::class,
    'an array by key', 'a load of many that returns a list is an error');
is($fence->fetchMany(['f:2'], fn () => []), ['f:2' => null], 'a key without a row is null');
is($fence->fetch('f:2', $no), null, '... and that is cached');
fails(fn () => $fence->fetch('f:1', $no, 0), InvalidArgumentException::class, 'ttlMs',
    'a TTL of 0 is an error at the call, too');

// fetchSql: parameters by place and by name, types, what ends a statement.
$invalidate('f:1', 'f:2', 'f:3');
is($fence->fetchSql('f:1', 'SELECT id, name, id > 1 AS big FROM fenced WHERE id = :id',
    ['id' => 1]),
    [['id' => 1, 'name' => 'first', 'big' => false]], 'fetchSql() takes parameters by name');
is($fence->fetchSql('f:2', "SELECT id FROM fenced WHERE id IN (?, ?) ORDER BY id DESC -- all",
    [1, 2]), [['id' => 2], ['id' => 1]],
        '... and by place, keeps the order, may end with a comment');
$invalidate('f:2');
is($fence->fetchSql('f:2', "SELECT 2 AS two ;\n"), [['two' => 2]], '... or a semicolon');
fails(fn () => $fence->fetchSql('f:3', "UPDATE fenced SET name = 'no' WHERE id = 3 RETURNING *"),
    PDOException::class, '', '... and a statement that writes is an error');

// A load that writes: in a transaction its value might be rolled back.
$invalidate('f:1');
$pdo->beginTransaction();
$fence->fetch('f:1', function () use ($pdo) {
    $pdo->exec("UPDATE fenced SET name = 'mine' WHERE id = 1");
    return ask($pdo, 'SELECT name FROM fenced WHERE id = 1');
});
$pdo->rollBack();
ok(!redis()->exists('f:1'), 'what a load has written itself, in a transaction, is not stored');
fails(function () use ($fence, $pdo) {
    $pdo->beginTransaction();
    try {
        $fence->transaction('f:1', fn () => 1);
    } finally {
        $pdo->rollBack();
    }
}, LogicException::class, 'inside one', 'transaction() inside of a transaction is an error');
$own = new Fence($redis, PATIENT + ['snapshot' => fn ($token) => ask($pdo,
    'SELECT uncache.snapshot(?)',
    [$token])]);
$pdo->beginTransaction();
$own->fetch('f:1', function () use ($pdo) {
    $pdo->exec("UPDATE fenced SET name = 'mine' WHERE id = 1");
    return 'mine';
});
$pdo->rollBack();
ok(!redis()->exists('f:1'), '... also where the application takes the snapshot');
is($own->fetch('f:1', $load(1)), 'first', 'an application may take the snapshot itself');
is($own->fetch('f:1', $no), 'first', '... and its values are stored');

$invalidate('f:1');
$pdo->beginTransaction();
try {
    $pdo->exec('SELECT 1 / 0');
} catch (PDOException) {
}
is($fence->fetch('f:1', fn () => 'x'), 'x', 'in a transaction that has failed a value is served');
$pdo->rollBack();
ok(!redis()->exists('f:1'), '... and not stored');

$errors = [];
$noteErrors = function ($event, $data) use (&$errors) {
    if ($event === Event::ERROR) {
        $errors[] = $data['message'];
    }
};

// A database without pg_uncache: the application goes on.
$pdo->exec('SET search_path = public');
$bare = new PDO('pgsql:host=' . env('PGHOST') . ';port=' . env('PGPORT') . ';dbname=postgres',
    env('PGUSER'));
$errors = [];
$invalidate('f:1');
$without = new Fence(redis(), PATIENT + ['db' => $bare, 'onEvent' => $noteErrors]);
is($without->fetch('f:1', fn () => 'value'), 'value', 'without pg_uncache a value is served');
is($without->fetchSql('f:1', 'SELECT 1 AS one'), [['one' => 1]], '... by fetchSql() as well');
ok(!redis()->exists('f:1') && str_contains(implode($errors), 'uncache'),
    '... not stored, and onEvent is told why');

// Rights: a reader who may not call the functions gets values all the same.
redis()->rawCommand('ACL', 'SETUSER', 'plain', 'on', 'nopass', '+get', '+select', '+ping', '~*');
$limited = redis();
$limited->auth(['plain', 'x']);
$limited->select((int) env('REDIS_DB'));
$errors = [];
$fence = new Fence($limited, PATIENT + ['db' => $pdo, 'onEvent' => $noteErrors]);
is($fence->fetch('f:1', $load(1)), 'first', 'without the right to the functions a value is served');
is($fence->fetchMany(['f:1', 'f:2'], fn () => []), ['f:1' => null, 'f:2' => null], '... many, too');
ok(str_contains(implode($errors), 'NOPERM'), '... and onEvent is told why');
redis()->rawCommand('ACL', 'DELUSER', 'plain');

// Shadow check.
freshTable($pdo, 'shadowed', 's:{id}');
$checks = ['checked' => 0, 'stale' => 0];
$shadow = new Fence(redis(), PATIENT + ['db' => $pdo, 'shadow' => 1, 'onEvent' =>
    function ($event, $data) use (&$checks) {
        if ($event === Event::CHECKED) {
            $checks['checked']++;
            $checks['stale'] += (int) $data['stale'];
        }
    }]);
$name = fn (int $id) => fn () => ask($pdo, 'SELECT name FROM shadowed WHERE id = ?', [$id]);
$shadow->fetch('s:1', $name(1));
$shadow->fetch('s:1', $name(1));
is($checks, ['checked' => 1, 'stale' => 0], 'shadow: a hit is compared, and is right');
redis()->set('s:2', '"old"', 60);
$shadow->fetch('s:2', $name(2));
is($checks, ['checked' => 2, 'stale' => 1], '... a plainly stored old value is found');
redis()->set('s:3', '  "first"', 60);
$shadow->fetch('s:3', $name(3));
is($checks['stale'], 1, '... another way to write the same JSON is not stale');
$pdo->beginTransaction();
$shadow->fetch('s:2', $name(2));
$pdo->commit();
is($checks['checked'], 3, '... and in a transaction nothing is compared');
// A value that is deleted while it is compared is on its way.
redis()->set('s:1', '"old"', 60);
$shadow->fetch('s:1', function () use ($writer, $name) {
    $writer->exec("UPDATE shadowed SET name = name || '.' WHERE id = 1");
    return $name(1)();
});
is($checks['stale'], 1, '... nor is one that a commit is about to delete');
$writer->exec("SET uncache.consistency = 'eventual'");
for ($i = 0; $i < 30; $i++) {
    redis()->set('s:1', '"old"', 60);
    $shadow->fetch('s:1', function () use ($writer, $name) {
        $writer->exec("UPDATE shadowed SET name = name || '.' WHERE id = 1");
        return $name(1)();
    });
}
$writer->exec('RESET uncache.consistency');
is($checks['stale'], 1, '... also where the COMMIT does not wait for that');
ok($checks['checked'] >= 20, '... though all of that was compared');

// What was found is in uncache.stat, where the functions know uncache_report.
$reports = function (PDO $db) {
    [$checked, $stale] = explode(' ', ask($db,
        "SELECT checked || ' ' || found_stale FROM uncache.stat"));
    return (int) $checked > 0 && (int) $stale > 0;
};
ok(await(fn () => $reports($pdo)), 'uncache.stat shows what was compared, and what was stale');

// Seeded staleness of one key in 10,000 is found by a share of the hits.
$keys = array_map(fn ($i) => "s:many:$i", range(0, 9_999));
redis()->mset(array_fill_keys($keys, '"right"'));
redis()->set('s:many:1234', '"wrong"');
$checks = ['checked' => 0, 'stale' => 0];
$some = new Fence(redis(), PATIENT + ['db' => $pdo, 'shadow' => 0.05, 'onEvent' =>
    function ($event, $data) use (&$checks) {
        if ($event === Event::CHECKED) {
            $checks['checked']++;
            $checks['stale'] += (int) $data['stale'];
        }
    }]);
mt_srand(20);
for ($round = 0; $round < 60 && $checks['stale'] === 0; $round++) {
    foreach ($round === 0 ? $keys : array_slice($keys, 1200, 100) as $key) {
        $some->fetch($key, fn () => 'right');
    }
}
ok($checks['stale'] >= 1,
    "shadow: staleness of one key in 10,000 is found ($checks[checked] compared)");
ok($checks['checked'] > 0 && $checks['checked'] < 2_500, '... by a share of the hits');
redis()->unlink($keys);

// A Cluster.
$clusterPort = (int) env('REDIS_CLUSTER_PORT');
$db = pdo('PGPORT', env('PGDATABASE') . '_cluster');
freshTable($db, 'fenced', 'f:{id}', 'f:gen');
$clusters = [
    'phpredis' => new RedisCluster(null, ["127.0.0.1:$clusterPort"], 1, 1),
    'predis' => new Predis\Client(["tcp://127.0.0.1:$clusterPort"], ['cluster' => 'redis']),
];
foreach ($clusters as $name => $client) {
    ask($db, "SELECT uncache.invalidate_keys('f:1', 'f:2', 'f:3', 'f:gen'), uncache.wait()");
    $fence = new Fence($client, PATIENT + ['db' => $db, 'ttlMs' => 60_000]);
    $read = fn (int $id) => fn () => ask($db, 'SELECT name FROM fenced WHERE id = ?', [$id]);
    $values = array_map(fn ($id) => $fence->fetch("f:$id", $read($id)), [1, 2, 3]);
    is($values, ['first', 'first', 'first'], "$name, Cluster: misses load");
    is(array_map(fn ($id) => $fence->fetch("f:$id", $no), [1, 2, 3]), $values,
        '... and are stored');
    is($fence->counters()['stored'], 3, '... all of them');
    $db->exec("UPDATE fenced SET name = 'second' WHERE id = 2");
    is($fence->fetchMany(['f:1', 'f:2', 'f:3'], fn (array $keys) => array_fill_keys($keys,
        'second')),
        ['f:1' => 'first', 'f:2' => 'second', 'f:3' => 'first'],
        '... a write deletes its key, and many are fetched from all masters');
    is($fence->tags(['f:gen'], fn ($nonce) => $fence->fetch("f:page:$nonce", fn () => 1)), 1,
        '... a page below a tag');
    is($fence->tags(['f:gen'], fn ($nonce) => $fence->fetch("f:page:$nonce", $no)), 1,
        '... is found');
    $shadow = new Fence($client, PATIENT + ['db' => $db, 'shadow' => 1]);
    $fence->fetch('f:1', fn () => 'old');
    $shadow->fetch('f:1', fn () => 'new');
    $db->exec("UPDATE fenced SET name = 'first'");
}
ok(await(fn () => $reports($db)), 'uncache.stat shows what was compared in a Cluster');

$one = new Redis();
$one->connect('127.0.0.1', $clusterPort);
foreach (['a', 'f:1', 'a{b}c', '{}x', 'a{}{b}', '{a', "\xff\0", 'x}y{z}'] as $key) {
    is(PgUncache\Redis\Slots::slotOf($key), $one->rawCommand('CLUSTER', 'KEYSLOT', $key),
        'the slot of ' . json_encode($key, JSON_INVALID_UTF8_SUBSTITUTE));
}

// PgBouncer and a standby, which conformance has too; here many keys, and one statement.
foreach (['PgBouncer' => 'PGBOUNCER_PORT', 'a standby' => 'STANDBY_PORT'] as $name => $port) {
    $other = pdo($port);
    $fence = new Fence(redis(), PATIENT + ['db' => $other]);
    $invalidate('f:1', 'f:2', 'f:3');
    await(fn () => ask($other, "SELECT to_regclass('fenced') IS NOT NULL"));
    $isStored = await(function () use ($fence) {
        $fence->fetchMany(['f:1', 'f:2'], fn ($keys) => array_fill_keys($keys, 'x'));
        $fence->fetchSql('f:3', 'SELECT id FROM fenced');
        return $fence->counters()['stored'] >= 3;
    }, 30);
    ok($isStored, "$name: many keys and one statement are stored");
}
