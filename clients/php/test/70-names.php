<?php

declare(strict_types=1);

// docs/names.md says how each library spells a key; this compares it with what the library writes.

use Symfony\Component\Cache\Adapter\Psr16Adapter;
use Symfony\Component\Cache\Adapter\RedisAdapter;
use Symfony\Component\Cache\Adapter\TagAwareAdapter;
use Symfony\Component\Cache\Psr16Cache;

require_once __DIR__ . '/laravel.php';

$page = @file_get_contents(dirname(__DIR__, 3) . '/docs/names.md') ?: '';

/** The page's columns "stored under" and "template" of a row. */
$row = function (string $label) use ($page): array {
    foreach (explode("\n", $page) as $line) {
        $cells = array_map(fn ($cell) => trim($cell, ' `'), explode('|', trim($line)));
        if (($cells[1] ?? '') === $label) {
            return [$cells[3], $cells[4]];
        }
    }
    return ['not on the page', ''];
};
$redis = redis();
$pdo = pdo();
$pdo->exec('DROP TABLE IF EXISTS named');
$pdo->exec('CREATE TABLE named AS SELECT 42 AS id, 7 AS org_id');
/** The keys that $write makes. */
$written = function (callable $write) use ($redis): array {
    $redis->flushDB();
    $write();
    $keys = $redis->keys('*');
    sort($keys);
    return $keys;
};
$check = function (string $label, callable $write) use ($row, $written, $pdo) {
    [$stored, $template] = $row($label);
    $keys = $written($write);
    if (!ok(in_array($stored, $keys, true), "$label: the page says how the key is stored")) {
        note("page: $stored\nRedis: " . implode(' ', $keys));
    }
    is(ask($pdo, 'SELECT (uncache.render(?, r))[1] FROM named r', [$template]), $stored,
        '... and the template that gives it');
};

foreach (['phpredis', 'predis'] as $client) {
    $laravel = laravel($client)['cache']->store('redis');
    $check('Laravel 8', fn () => $laravel->put('user:42', 1, 60));
    $check('Laravel 8, tag', fn () => $laravel->tags(['org.7'])->put('page', 1, 60));
    $laravel->tags(['org.7'])->put('page', 'old', 60);
    $redis->del($row('Laravel 8, tag')[0]);
    is($laravel->tags(['org.7'])->get('page'), null,
        '... and without it nothing below the tag is found');
}
$get = fn ($adapter) => fn () => $adapter->get('user.42', fn () => 1);
$check('Symfony 5.4, RedisAdapter', $get(new RedisAdapter($redis, 'app', 60)));
$check('Symfony 5.4, Psr16Adapter',
    $get(new Psr16Adapter(new Psr16Cache(new RedisAdapter($redis, '', 60)), 'app')));
$tagged = new TagAwareAdapter(new RedisAdapter($redis, 'app', 60));
$keys = $written(function () use ($tagged) {
    $item = $tagged->getItem('user.42')->set(1)->tag('org.7');
    $tagged->save($item);
});
$tags = array_filter($keys, fn ($key) => str_contains($key, 'org.7'));
ok($tags !== [] && $tags === array_filter($tags, fn ($key) => str_contains($key, "\0")),
    "Symfony's tags have bytes of 0 in their names, which no text in PostgreSQL can have");
$redis->flushDB();
