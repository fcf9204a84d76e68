<?php

declare(strict_types=1);

// The Laravel store against Laravel's own cache, redis and database components.

use PgUncache\Laravel\UncacheStore;

require_once __DIR__ . '/laravel.php';

final class Visit
{
    public function __construct(public string $who)
    {
    }
}

$pdo = pdo();
$writer = pdo();
$prefix = 'laravel_database_laravel_cache:';
$sees = fn (string $key) => redis()->exists($prefix . $key) === 1;

foreach (['phpredis', 'predis'] as $client) {
    freshTable($pdo, 'laravel', $prefix . 'user:{id}', $prefix . 'tag:org.{id}:key');
    $app = laravel($client);
    $cache = $app['cache']->store('users');
    $store = $cache->getStore();
    $db = $app['db']->connection();
    $name = fn (int $id) => fn () => $db->table('laravel')->where('id', $id)->value('name');
    $no = fn () => throw new LogicException('loaded, and should not have been');
    ok($store instanceof UncacheStore, "$client: the driver uncache is there");

    is($cache->remember('user:1', 60, $name(1)), 'first', '... remember() loads');
    ok($sees('user:1'), '... and stores under the name that a rule can spell');
    is($cache->remember('user:1', 60, $no), 'first', '... and is a hit then');
    is($app['cache']->store('redis')->get('user:1'), 'first',
        "... which Laravel's own store reads");
    is($store->counters()['stored'], 1, '... counted');
    $writer->exec("UPDATE laravel SET name = 'second' WHERE id = 1");
    is($cache->remember('user:1', 60, $name(1)), 'second', '... a write deletes it');
    ok(redis()->pttl($prefix . 'user:1') <= 60_000, '... with its TTL');

    // A reader that is slower than a writer.
    $value = $cache->remember('user:2', 60, function () use ($name, $writer) {
        $value = $name(2)();
        $writer->exec("UPDATE laravel SET name = 'second' WHERE id = 2");
        return $value;
    });
    is([$value, $sees('user:2')], ['first', false], '... a slow reader serves and does not store');
    is($store->counters()['refused'], 1, '... counted');

    // get and put, many and putMany, forever.
    is($cache->get('user:3'), null, '... get() of a missing key');
    $cache->forget('plain');
    ok($cache->put('user:3', 'third', 60) && $sees('user:3'), '... and put() after it store');
    ok(!$cache->put('user:4', 'x', 60) && !$sees('user:4'),
        '... put() without get() stores nothing');
    ok(!$cache->put('user:3', 'x', 60) && $cache->get('user:3') === 'third',
        '... nor a second put()');
    $cache->get('user:5');
    ok(!$cache->add('user:6', 'x', 60) && !$sees('user:6'), '... nor add() of a ready value');
    ok($cache->add('user:5', 'x', 60), '... but add() after a get()');
    is($cache->increment('user:9'), false, '... nor increment()');
    is($cache->many(['user:3', 'user:7', 'plain']), ['user:3' => 'third', 'user:7' => null,
        'plain' => null], '... many() mixes hits, misses and plain keys');
    ok($cache->putMany(['user:7' => 7, 'plain' => 'p'], 60), '... and putMany() stores them');
    is($cache->many(['user:7', 'plain']), ['user:7' => '7', 'plain' => 'p'], '... in Redis');
    is($cache->rememberForever('user:8', fn () => 8), 8, '... rememberForever()');
    $ttl = redis()->pttl($prefix . 'user:8');
    ok($ttl > 80_000_000 && $ttl <= 86_400_000, '... stores for a day');
    ok($cache->put('rate:1', 1, 60) && $cache->increment('rate:1') === 2,
        '... keys that are not fenced are as ever');
    ok(($store->counters()['plain'] ?? 0) >= 2, '... and counted');
    ok($cache->lock('job', 10)->get() && $cache->lock('job', 10)->get() === false,
        '... locks, too');
    $cache->lock('job')->forceRelease();
    ok($cache->forget('user:8') && !$sees('user:8'), '... forget() deletes');

    // Values: objects, false, null, what can't be decoded.
    $visit = $cache->remember('user:10', 60, fn () => new Visit('me'));
    is($cache->get('user:10')->who, 'me', '... objects come back');
    $cache->remember('user:11', 60, fn () => false);
    is($cache->get('user:11'), false, '... false, too');
    redis()->set($prefix . 'user:12', 's:5:"x";', 60);
    redis()->set($prefix . 'user:13', 'O:4:"Gone":0:{}', 60);
    is($cache->remember('user:12', 60, fn () => 'new'), 'new', '... a broken value is replaced');
    is($cache->remember('user:13', 60, fn () => 'new'), 'new',
        '... and one of a class that is gone');
    is([$cache->get('user:12'), $cache->get('user:13')], ['new', 'new'], '... in Redis');

    is($cache->remember('user:14', 60, fn () => null), null, '... null is served');
    $unfenced = $store->counters()['unfenced'];
    is([$cache->remember('user:14', 60, fn () => 14), $store->counters()['unfenced']],
        [14, $unfenced], '... and not stored, as Laravel takes it for a miss');

    // Transactions.
    ask($writer, "SELECT uncache.invalidate_table('laravel'), uncache.wait()");
    $db->transaction(fn () => $cache->remember('user:1', 60, $name(1)));
    ok($sees('user:1'), '... a transaction that only reads stores');
    $db->beginTransaction();
    $db->table('laravel')->where('id', 2)->update(['name' => 'mine']);
    is($cache->remember('user:2', 60, $name(2)), 'mine',
        '... in one that has written the value is served');
    $db->rollBack();
    ok(!$sees('user:2'), '... and not stored');
    $db->beginTransaction();
    $cache->remember('user:2', 60, function () use ($db, $name) {
        $db->table('laravel')->where('id', 2)->update(['name' => 'mine']);
        return $name(2)();
    });
    $db->rollBack();
    ok(!$sees('user:2'), '... nor where the load itself writes');
    $cache->get('user:2');
    try {
        $db->transaction(function () use ($db, $name, &$value) {
            $db->table('laravel')->where('id', 2)->update(['name' => 'mine']);
            $value = $name(2)();
            throw new LogicException('back');
        });
    } catch (LogicException) {
    }
    ok(!$cache->put('user:2', $value, 60) && !$sees('user:2'),
        '... nor what was read in a transaction that was rolled back since');
    $db->beginTransaction();
    $cache->get('user:2');
    $db->beginTransaction();
    $db->table('laravel')->where('id', 2)->update(['name' => 'mine']);
    $value = $name(2)();
    $db->rollBack();
    $db->commit();
    ok(!$cache->put('user:2', $value, 60) && !$sees('user:2'), '... nor in a savepoint');
    $db->beginTransaction();
    $cache->get('user:2');
    $db->commit();
    ok(!$cache->put('user:2', 'x', 60) && !$sees('user:2'),
        '... and what was looked up in a transaction ends with it');
    $db->beginTransaction();
    try {
        $db->select('SELECT 1 / 0');
    } catch (Illuminate\Database\QueryException) {
    }
    is($cache->remember('user:2', 60, fn () => 'x'), 'x',
        '... in one that has failed the value is served');
    $db->rollBack();
    ok(!$sees('user:2'), '... and not stored');
    $value = $cache->remember('user:2', 60, fn () => $db->transaction($name(2)));
    ok($sees('user:2'), '... a load may have a transaction of its own');
    $pdo->exec('SET default_transaction_isolation = DEFAULT');

    // Tags by their key.
    $loads = 0;
    $page = function () use ($cache, &$loads, $db) {
        return $cache->tags(['org.1', 'org.2'])->remember('page', 60, function () use (&$loads,
            $db) {
            $loads++;
            return $db->table('laravel')->where('id', '<', 3)->orderBy('id')->pluck('name')->all();
        });
    };
    is([count($page()), count($page()), $loads], [2, 2, 1], '... a page below tags is stored');
    ok($sees('tag:org.1:key'), '... their ids have keys that a rule can spell');
    $writer->exec("UPDATE laravel SET name = 'tagged' WHERE id = 2");
    is([$page()[1], $page()[1], $loads], ['tagged', 'tagged', 2], '... a write to one orphans it');
    $cache->tags(['org.1'])->flush();
    $page();
    is($loads, 3, '... flush() of a tag, too');
    is($cache->tags(['other'])->remember('x', 60, fn () => 'y'), 'y',
        "... other tags are Laravel's");
    $writer->exec("UPDATE laravel SET name = 'late' WHERE id = 2");
    $cache->tags(['org.1', 'org.2'])->remember('slow', 60, function () use ($writer) {
        $writer->exec("UPDATE laravel SET name = 'later' WHERE id = 2");
        return 'late';
    });
    is($cache->tags(['org.1', 'org.2'])->get('slow'), null,
        '... what was read while a tag was deleted is not found');
}

// What is wrong is said.
fails(fn () => laravel('phpredis', ['fenced' => []])['cache']->store('users'),
    InvalidArgumentException::class, 'fenced must be',
        'a store without fenced prefixes is an error');
fails(fn () => laravel('phpredis', ['ttlMs' => '1 day'])['cache']->store('users'),
    InvalidArgumentException::class, 'ttlMs', 'a TTL that is no number, too');
$app = laravel();
$app['db']->connection()->unsetEventDispatcher();
fails(fn () => $app['cache']->store('users'), LogicException::class, 'setEventDispatcher',
    'a database connection without events, too');

// With a lease the others wait, and one that will not store gives it back.
$app = laravel('phpredis', ['leaseMs' => 5000]);
$other = laravel('predis', ['leaseMs' => 5000])['cache']->store('users');
ask($pdo, "SELECT uncache.invalidate_table('laravel'), uncache.wait()");
$app['cache']->store('users')->get('user:1');
$app['cache']->store('users')->forget('user:1');
ok(took(fn () => $other->remember('user:1', 60, fn () => 1)) < 4000,
    'a lease that is not needed is given back');
