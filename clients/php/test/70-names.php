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

$isNew = class_exists(Illuminate\Cache\RedisTagSet::class);
$tag = $isNew ? 'Laravel 10, tag' : 'Laravel 8, tag';
foreach (['phpredis', 'predis'] as $client) {
    $laravel = laravel($client)['cache']->store('redis');
    $check('Laravel 8, 10', fn () => $laravel->put('user:42', 1, 60));
    $put = fn () => $laravel->tags(['org.7'])->put('page', 'old', 60);
    if ($isNew) {
        ok(in_array($row($tag)[0], $written($put), true), "$tag: the page says how it is stored");
        is($row($tag)[1], 'none', '... and that no template helps');
    } else {
        $check($tag, $put);
    }
    $put();
    $redis->del($row($tag)[0]);
    is($laravel->tags(['org.7'])->get('page'), $isNew ? 'old' : null,
        '... and what comes of deleting it');
}
$get = fn ($adapter) => fn () => $adapter->get('user.42', fn () => 1);
$check('Symfony 5.4, 6.4, RedisAdapter', $get(new RedisAdapter($redis, 'app', 60)));
$check('Symfony 5.4, 6.4, Psr16Adapter',
    $get(new Psr16Adapter(new Psr16Cache(new RedisAdapter($redis, '', 60)), 'app')));
$tagged = new TagAwareAdapter(new RedisAdapter($redis, 'app', 60));
$keys = $written(function () use ($tagged) {
    $item = $tagged->getItem('user.42')->set(1)->tag('org.7');
    $tagged->save($item);
});
$tags = array_values(preg_grep('/^app:org\.7/', $keys));
if (str_contains($tags[0] ?? '', "\0")) {
    is($tags, ["app:org.7\0tags\0"], 'Symfony 5.4, tags: the names have bytes of 0');
} else {
    is($tags, [ask($pdo, "SELECT (uncache.render(E'app:org.{org_id}\\x01tags\\x01', r))[1] "
        . 'FROM named r')], "Symfony 6.4, TagAwareAdapter: the page's template gives a tag's key");
    ok(str_contains($page, "E'app:org.{org_id}\\x01tags\\x01'"), '... which is on the page');
}
$redis->del($tags);
ok(!(new TagAwareAdapter(new RedisAdapter($redis, 'app', 60)))->getItem('user.42')->isHit(),
    '... and without that key nothing of the tag is found');
$redis->flushDB();
