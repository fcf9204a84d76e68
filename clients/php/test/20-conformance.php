<?php

declare(strict_types=1);

// The cases that every client passes, each with both Redis clients.

use PgUncache\Fence;

final class Conformance
{
    private PDO $sql;
    private PDO $own;
    private Redis $redis;
    private ?Fence $fence = null;
    private array $saved = [];
    private array $connections = [];

    public function __construct(private array $file, private Closure $makeRedis)
    {
        $this->sql = pdo();
        $this->own = pdo();
        $this->redis = redis();
        foreach ($file['setup'] as $statement) {
            $this->sql->exec($statement);
        }
    }

    /** Returns what was wrong, or null. */
    public function run(array $case): ?string
    {
        foreach ($this->file['reset'] as $statement) {
            ask($this->sql, $statement);
        }
        $this->saved = [];
        $db = fn () => $this->own;
        $this->fence = new Fence(($this->makeRedis)(),
            ($case['options'] ?? []) + $this->file['options'] + ['db' => $db]);
        try {
            foreach ($case['steps'] as $i => $step) {
                $wrong = $this->step($step);
                if ($wrong !== null) {
                    return "step $i: $wrong";
                }
            }
            return null;
        } catch (Throwable $e) {
            return get_class($e) . ': ' . $e->getMessage() . ' at ' . $e->getLine();
        } finally {
            continueRedis();
            foreach ([$this->sql, $this->own] as $pdo) {
                if ($pdo->inTransaction()) {
                    $pdo->exec('ROLLBACK');
                }
            }
        }
    }

    private function step(array $step): ?string
    {
        $kind = array_values(array_intersect(['until', 'readers', 'sql', 'redis', 'fetch',
            'fetchMany', 'transaction', 'tags', 'undefined', 'bytes', 'signal', 'counters'],
            array_keys($step)))[0] ?? 'nothing';
        if (isset($step['fetchSql'])) {
            $kind = 'fetchSql';
        }
        return $this->{"do_$kind"}($step);
    }

    private function at(string $name): PDO
    {
        $port = ['primary' => 'PGPORT', 'standby' => 'STANDBY_PORT',
            'pgbouncer' => 'PGBOUNCER_PORT'];
        return $this->connections[$name] ??= pdo($port[$name]);
    }

    private function do_sql(array $step): ?string
    {
        $pdo = isset($step['on']) ? $this->at($step['on']) : $this->sql;
        $params = array_map($this->savedOr(...), $step['params'] ?? []);
        [$sql, $params] = self::questionMarks($step['sql'], $params);
        $reply = ask($pdo, $sql, $params);
        return $this->keepAndCompare($step, $reply === null ? null : (string) $reply);
    }

    /** $1 as PDO spells it. */
    private static function questionMarks(string $sql, array $params): array
    {
        $ordered = [];
        $sql = preg_replace_callback('/\$(\d)/', function ($m) use ($params, &$ordered) {
            $ordered[] = $params[$m[1] - 1];
            return '?';
        }, $sql);
        return [$sql, $ordered];
    }

    private function savedOr(mixed $word): mixed
    {
        return is_string($word) && $word !== '' && $word[0] === '$'
            ? $this->saved[substr($word, 1)] : $word;
    }

    private function do_redis(array $step): ?string
    {
        $this->redis->clearLastError();
        $words = array_map($this->savedOr(...), $step['redis']);
        try {
            $reply = PgUncache\Redis\PhpRedis::nulls($this->redis->rawCommand(...$words));
            $error = $this->redis->getLastError();
        } catch (RedisException $e) {
            $reply = null;
            $error = $e->getMessage();
        }
        if (isset($step['reply']['error'])) {
            return str_contains((string) $error, $step['reply']['error']) ? null : "error: $error";
        }
        return $error !== null ? "error: $error" : $this->keepAndCompare($step, $reply);
    }

    private function keepAndCompare(array $step, mixed $reply): ?string
    {
        if (isset($step['save'])) {
            $this->saved[$step['save']] = isset($step['at']) ? $reply[$step['at']] : $reply;
        }
        return array_key_exists('reply', $step) ? self::difference($reply, $step['reply']) : null;
    }

    private static function difference(mixed $got, mixed $expected): ?string
    {
        $isSame = match (true) {
            ($expected['any'] ?? false) === true => $got !== null,
            is_array($expected) && array_key_exists('json', $expected) =>
                is_string($got) && json_decode($got, true) === $expected['json'],
            is_array($expected) && array_is_list($expected) => is_array($got)
                && count($got) === count($expected)
                && array_filter(array_map(self::difference(...), $got, $expected)) === [],
            is_array($expected) => self::sorted($got) === self::sorted($expected),
            default => $got === $expected,
        };
        return $isSame ? null : 'got ' . json_encode($got) . ', not ' . json_encode($expected);
    }

    private static function sorted(mixed $value): mixed
    {
        if (is_array($value)) {
            ksort($value);
        }
        return $value;
    }

    private function load(array $step, int &$loads): Closure
    {
        return function () use ($step, &$loads) {
            $loads++;
            $value = ask($this->own, $step['load']);
            foreach ($step['during'] ?? [] as $one) {
                $this->step($one);
            }
            return $value;
        };
    }

    private function do_fetch(array $step): ?string
    {
        $loads = 0;
        $load = $this->load($step, $loads);
        return $this->call($step, $loads, fn () => $this->fence->fetch($step['fetch'], $load));
    }

    private function do_tags(array $step): ?string
    {
        $loads = 0;
        $load = $this->load($step, $loads);
        return $this->call($step, $loads, fn () => $this->fence->tags($step['tags'],
            fn ($nonce) => $this->fence->fetch("$step[page]:$nonce", $load)));
    }

    private function do_fetchMany(array $step): ?string
    {
        $loads = 0;
        $load = function (array $keys) use ($step, &$loads) {
            $loads++;
            $statement = $this->own->prepare(str_replace('$1', '?', $step['load']));
            $statement->execute(str_contains($step['load'], '$1')
                ? ['{"' . implode('","', $keys) . '"}'] : []);
            return $statement->fetchAll(PDO::FETCH_KEY_PAIR);
        };
        return $this->call($step, $loads, fn () => $this->fence->fetchMany($step['fetchMany'],
            $load));
    }

    private function do_fetchSql(array $step): ?string
    {
        [$sql, $params] = self::questionMarks($step['sql'], $step['params'] ?? []);
        $loads = 0;
        return $this->call($step, $loads,
            fn () => $this->fence->fetchSql($step['fetchSql'], $sql, $params));
    }

    private function do_transaction(array $step): ?string
    {
        $loads = 0;
        $read = function (PDO $pdo) use ($step) {
            foreach ($step['statements'] as $statement) {
                $value = ask($pdo, $statement);
            }
            return $value;
        };
        return $this->call($step, $loads,
            fn () => $this->fence->transaction($step['transaction'], $read));
    }

    private function call(array $step, int &$loads, callable $call): ?string
    {
        $own = $this->own;
        if (isset($step['on'])) {
            $this->own = $this->at($step['on']);
        }
        try {
            foreach ($step['before'] ?? [] as $statement) {
                $this->own->exec($statement);
            }
            $start = microtime(true);
            $value = $call();
            $ms = (microtime(true) - $start) * 1000;
            foreach ($step['after'] ?? [] as $statement) {
                $this->own->exec($statement);
            }
        } catch (Throwable $e) {
            return isset($step['fails']) ? null : get_class($e) . ': ' . $e->getMessage();
        } finally {
            $this->own = $own;
        }
        return match (true) {
            isset($step['fails']) => 'it did not fail',
            isset($step['loads']) && $loads !== $step['loads'] => "$loads loads",
            isset($step['atMostMs']) && $ms > $step['atMostMs'] => "took $ms ms",
            default => self::difference($value, $step['value']),
        };
    }

    private function do_undefined(array $step): ?string
    {
        $value = $this->fence->fetch($step['undefined'], function () {
        });
        return $value === null && $this->redis->get($step['undefined']) !== '' ? null : 'a value';
    }

    private function do_bytes(array $step): ?string
    {
        $bytes = base64_decode($step['base64']);
        $fence = new Fence(($this->makeRedis)(), PATIENT + ['db' => $this->own,
            'encode' => fn ($v) => $v, 'decode' => fn ($v) => $v]);
        $first = $fence->fetch($step['bytes'], fn () => $bytes);
        $second = $fence->fetch($step['bytes'], fn () => throw new LogicException('no hit'));
        return $first === $bytes && $second === $bytes
            && $this->redis->get($step['bytes']) === $bytes
            ? null : 'other bytes';
    }

    private function do_signal(array $step): ?string
    {
        $step['signal'] === 'STOP' ? stopRedis() : continueRedis();
        return null;
    }

    private function do_counters(array $step): ?string
    {
        $got = array_intersect_key($this->fence->counters(), $step['counters']);
        return self::difference($got, $step['counters']);
    }

    private function do_until(array $step): ?string
    {
        $wrong = '';
        await(function () use ($step, &$wrong) {
            $wrong = $this->step($step['until']);
            return $wrong === null;
        }, $step['seconds']);
        return $wrong;
    }
}

$file = json_decode(file_get_contents(env('CONFORMANCE') . '/cases.json'), true, 512,
    JSON_THROW_ON_ERROR);
$reply = redis()->rawCommand('FCALL', 'uncache_get', '1', 'conformance:lease', '1000');
$missing = array_filter(['concurrency', is_array($reply) ? '' : 'lease']);

foreach (['phpredis' => redis(...), 'predis' => predis(...)] as $client => $makeRedis) {
    $runner = new Conformance($file, $makeRedis);
    foreach ($file['cases'] as $case) {
        $name = "$client: $case[name]";
        if ($without = array_intersect($case['needs'] ?? [], $missing)) {
            skip($name, 'no ' . implode(', ', $without) . ' here');
            continue;
        }
        if ($client !== 'phpredis' && str_starts_with($case['name'], 'protocol:')) {
            continue;
        }
        $wrong = $runner->run($case);
        if (!ok($wrong === null, $name)) {
            note($wrong);
        }
    }
}
