<?php

declare(strict_types=1);

// What needs no PostgreSQL: options, counters, the breaker, wrong uses.

use PgUncache\Breaker;
use PgUncache\Counters;
use PgUncache\Database;
use PgUncache\Event;
use PgUncache\Fence;

$redis = new Redis();
$snapshot = fn ($token) => null;
$wrong = fn (array $options, string $words, string $name) => fails(
    fn () => new Fence($redis, $options), InvalidArgumentException::class, $words, $name);

$wrong([], 'db is missing', 'a fence without a database says what is missing');
$wrong(['db' => 'pgsql:'], 'PDO connection', 'a DSN is no connection');
$wrong(['snapshot' => $snapshot, 'ttl' => 60], 'unknown option "ttl"',
    'an option that does not exist is an error that lists those that do');
$wrong(['snapshot' => $snapshot, 'ttlMs' => '60s'], 'ttlMs must be a positive',
    'a TTL is a number');
$wrong(['snapshot' => $snapshot, 'ttlMs' => 0], 'ttlMs must be a positive', 'a TTL is not 0');
$wrong(['snapshot' => $snapshot, 'leaseMs' => 60001], 'at most 60000', 'a lease has a limit');
$wrong(['snapshot' => $snapshot, 'redisTimeoutMs' => 0.05], 'redisTimeoutMs must be',
    'the time limit is in milliseconds, not seconds');
$wrong(['snapshot' => $snapshot, 'shadow' => 2], 'from 0 to 1', 'shadow is a share');
$wrong(['snapshot' => $snapshot, 'shadow' => 0.1], 'needs the option db', '... and needs db');
$wrong(['snapshot' => $snapshot, 'encode' => 'strval'], 'belong together',
    'encode needs decode beside it');
fails(fn () => new Fence(new stdClass(), ['snapshot' => $snapshot]),
    InvalidArgumentException::class, 'Predis client', 'what is no Redis client is refused');
ok((new Fence($redis, snapshot: $snapshot, ttlMs: 1000)) instanceof Fence,
    'options can be named arguments');
fails(fn () => (new Fence($redis, snapshot: $snapshot))->fetchSql('k', 'SELECT 1'),
    LogicException::class, 'needs the option db', 'fetchSql() without db says so');
fails(fn () => (new Fence($redis, snapshot: $snapshot))->transaction('k', fn () => 1),
    LogicException::class, 'needs the option db', 'transaction() without db says so');
fails(fn () => (new Fence($redis, snapshot: $snapshot))->tags([], fn () => 1),
    InvalidArgumentException::class, 'needs a tag', 'tags() without tags says so');

// One warning where fills go unfenced for a minute, and one more after something was stored.
$now = 1000.0;
$warnings = [];
$counters = new Counters(function (string $event, array $data) use (&$warnings) {
    if ($event === Event::WARNING) {
        $warnings[] = $data['message'];
    }
}, function () use (&$now) {
    return $now;
});
$counters->note(Event::AWAY, ['message' => 'Connection refused']);
$counters->note(Event::UNFENCED);
$now += 59;
$counters->note(Event::UNFENCED);
is(count($warnings), 0, 'no warning before a minute is over');
$now += 2;
$counters->note(Event::UNFENCED);
$now += 100;
$counters->note(Event::UNFENCED);
is(count($warnings), 1, 'one warning where fills are unfenced for a minute');
ok(str_contains($warnings[0] ?? '', 'uncache.stat') && str_contains($warnings[0],
    'Connection refused'),
    '... that says where to look, and what Redis said');
$counters->note(Event::STORED);
$counters->note(Event::UNFENCED);
$now += 61;
$counters->note(Event::UNFENCED);
is(count($warnings), 2, '... and one more after it has worked again');
is($counters->all()['unfenced'], 6, 'unfenced fills are counted');

// The breaker learns from a socket of its own that the server is back.
$server = stream_socket_server('tcp://127.0.0.1:0');
$address = 'tcp://' . stream_socket_get_name($server, false);
$breaker = new Breaker($address, 'test breaker ' . getmypid());
ok($breaker->allows(), 'a breaker lets commands pass');
$breaker->trip();
$slowest = 0.0;
for ($i = 0; $i < 200; $i++) {
    $slowest = max($slowest, took(function () use ($breaker, &$isOpen) {
        $isOpen = $isOpen || $breaker->allows();
    }));
}
ok(!$isOpen, '... and none to a server that takes connections and does not answer');
ok($slowest < 50, '... without waiting for it');
$peer = stream_socket_accept($server, 5);
ok(await(function () use ($breaker, $peer) {
    stream_set_blocking($peer, false);
    $breaker->allows();
    return fread($peer, 64) === "PING\r\n";
}), '... while it asks once');
ok(!$breaker->allows(), '... until it is answered');
fwrite($peer, "+PONG\r\n");
ok(await(fn () => $breaker->allows()), 'an answer lets commands pass again');
$breaker->reset();
fclose($peer);
$breaker->trip();
ok(!$breaker->allows(), 'a second failure closes the way again');
$peer = stream_socket_accept($server, 5);
await(function () use ($breaker, $peer) {
    stream_set_blocking($peer, false);
    $breaker->allows();
    return fread($peer, 64) === "PING\r\n";
});
fwrite($peer, "-LOADING Redis is loading the dataset in memory\r\n");
$isOpen = false;
$until = microtime(true) + 0.3;
while (microtime(true) < $until) {
    $isOpen = $isOpen || $breaker->allows();
}
ok(!$isOpen, 'a server that still loads its data is not back');
fclose($server);
$isOpen = false;
$until = microtime(true) + 0.3;
while (microtime(true) < $until) {
    $isOpen = $isOpen || $breaker->allows();
}
ok(!$isOpen, 'nor is one that refuses connections');
$breaker->reset();

if (function_exists('apcu_enabled') && apcu_enabled()) {
    $mine = new Breaker($address, 'shared breaker');
    $mine->trip();
    ok(!(new Breaker($address, 'shared breaker'))->allows(),
        'with APCu another request knows at once that Redis is away');
    ok((new Breaker($address, 'another server'))->allows(), '... and of that server alone');
    $mine->reset();
    ok((new Breaker($address, 'shared breaker'))->allows(), '... and that it is back');

    // Requests that are shorter than a minute.
    $warnings = [];
    $request = function () use (&$warnings, &$now) {
        return new Counters(function (string $event) use (&$warnings) {
            if ($event === Event::WARNING) {
                $warnings[] = $event;
            }
        }, function () use (&$now) {
            return $now;
        }, 'shared counters');
    };
    foreach ([0, 30, 31, 1] as $seconds) {
        $now += $seconds;
        $request()->note(Event::UNFENCED);
    }
    is(count($warnings), 1, 'with APCu short requests warn after a minute, one of them');
    $request()->note(Event::STORED);
    $request()->note(Event::UNFENCED);
    is(count($warnings), 1, '... and no more once something was stored');
    $now += 61;
    $request()->note(Event::UNFENCED);
    is(count($warnings), 2, '... until it goes on for a minute again');
} else {
    skip('with APCu another request knows at once that Redis is away', 'no APCu');
}
