<?php

declare(strict_types=1);

// The PSR-16 cache, by itself and below Symfony's cache.

use PgUncache\SimpleCache;
use Symfony\Component\Cache\Adapter\Psr16Adapter;
use Symfony\Contracts\Cache\ItemInterface;

$pdo = pdo();
$writer = pdo();
foreach (['phpredis' => redis(), 'predis' => predis()] as $client => $redis) {
    freshTable($pdo, 'simple', 'user:{id}', 'pool_user.{id}');
    $cache = new SimpleCache($redis, PATIENT, db: $pdo, fenced: ['user:']);
    $name = fn (int $id) => ask($pdo, 'SELECT name FROM simple WHERE id = ?', [$id]);
    is($cache->get('user:1', 'none'), 'none', "$client: a missing key gives the default");
    ok($cache->set('user:1', $name(1), 60), '... and set() after it stores');
    is($cache->get('user:1'), 'first', '... which get() finds');
    ok(redis()->pttl('user:1') <= 60_000, '... with the TTL');
    ok(!$cache->set('user:2', 'x', 60) && !$cache->has('user:2'),
        '... set() without get() stores nothing');
    $cache->get('user:2');
    $value = $name(2);
    $writer->exec("UPDATE simple SET name = 'second' WHERE id = 2");
    ok(!$cache->set('user:2', $value, 60) && !$cache->has('user:2'), '... a slow reader, too');
    is($cache->getMultiple(['user:1', 'user:3', 'plain'], 0),
        ['user:1' => 'first', 'user:3' => 0, 'plain' => 0], '... many keys');
    ok($cache->setMultiple(['user:3' => [1], 'plain' => null], new DateInterval('PT1M')),
        '... are stored');
    is($cache->getMultiple(['user:3', 'plain'], 0), ['user:3' => [1], 'plain' => null],
        '... null is a value');
    is($cache->counters()['plain'] ?? 0, 1, '... plain keys are counted');
    ok($cache->set('plain', 'x', 0) && !$cache->has('plain'), '... a TTL of 0 deletes');
    ok($cache->deleteMultiple(['user:3']) && !$cache->has('user:3'), '... delete');
    redis()->set('user:3', 'a:1:{i:0;', 60);
    is($cache->get('user:3', 'none'), 'none', '... a value that can not be decoded is a miss');
    ok($cache->set('user:3', 'new') && $cache->get('user:3') === 'new', '... and is replaced');
    foreach (['', 'a{b', 1.5] as $key) {
        fails(fn () => $cache->get($key), Psr\SimpleCache\InvalidArgumentException::class,
            'a key must',
            '... ' . var_export($key, true) . ' is no key');
    }
    $cache->get('user:9');
    $pdo->beginTransaction();
    $pdo->exec("INSERT INTO simple VALUES (9, 'mine')");
    $value = $name(9);
    ok(!$cache->set('user:9', $value), '... a transaction that has written stores nothing');
    $cache->get('user:9');
    $pdo->rollBack();
    $cache->rolledBack();
    ok(!$cache->set('user:9', $value) && !redis()->exists('user:9'), '... nor after its ROLLBACK');

    $symfony = new Psr16Adapter(new SimpleCache($redis, PATIENT, db: $pdo, fenced: ['pool_']),
        'pool');
    $load = function (ItemInterface $item) use ($name) {
        $item->expiresAfter(60);
        return $name(1);
    };
    is($symfony->get('user.1', $load), 'first', "... Symfony's contract loads");
    ok(redis()->exists('pool_user.1') === 1, '... stores under a name that a rule can spell');
    is($symfony->get('user.1', fn () => throw new LogicException('loaded')), 'first',
        '... and hits');
    $writer->exec("UPDATE simple SET name = 'second' WHERE id = 1");
    is($symfony->get('user.1', $load), 'second', '... until a write');
    is($symfony->get('user.3', function () use ($writer, $name) {
        $value = $name(3);
        $writer->exec("UPDATE simple SET name = 'second' WHERE id = 3");
        return $value;
    }), 'first', '... a slow reader is served');
    ok(!redis()->exists('pool_user.3'), '... and does not store');
}
