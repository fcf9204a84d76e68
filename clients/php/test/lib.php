<?php

declare(strict_types=1);

// lib.php: TAP, and the servers that clients/servers.sh has started.

error_reporting(E_ALL);
set_error_handler(function (int $level, string $message, string $file, int $line) {
    // Debian's libraries are older than its PHP.
    if (error_reporting() & $level && !($level & (E_DEPRECATED | E_USER_DEPRECATED))) {
        throw new ErrorException($message, 0, $level, $file, $line);
    }
    return true;
});
// Where the package has been installed, the autoloader of composer does this.
spl_autoload_register(function (string $class) {
    if (str_starts_with($class, 'PgUncache\\')) {
        $file = dirname(__DIR__) . '/src/' . strtr(substr($class, 10), '\\', '/') . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
foreach (['Predis/autoload.php', 'Illuminate/Cache/autoload.php', 'Illuminate/Redis/autoload.php',
    'Illuminate/Database/autoload.php', 'Illuminate/Events/autoload.php',
    'Symfony/Component/Cache/autoload.php', 'Psr/SimpleCache/autoload.php'] as $library) {
    require_once $library;
}
// Composer loads this one at once, Debian's autoloader does not.
$wrapper = stream_resolve_include_path('Symfony/Component/Cache/Traits/ValueWrapper.php');
if ($wrapper !== false) {
    require_once $wrapper;
}

/** For tests that are not about an outage: a busy machine is none. */
const PATIENT = ['redisTimeoutMs' => 10_000];

final class Tap
{
    public static int $run = 0;
    public static int $failed = 0;

    public static function finish(): int
    {
        echo '1..', self::$run, "\n";
        return self::$failed === 0 && self::$run > 0 ? 0 : 1;
    }
}

function note(string $text): void
{
    echo preg_replace('/^/m', '# ', $text), "\n";
}

function ok(bool $isTrue, string $name): bool
{
    Tap::$run++;
    Tap::$failed += $isTrue ? 0 : 1;
    echo $isTrue ? 'ok ' : 'not ok ', Tap::$run, ' - ', strtr($name, '#', ' '), "\n";
    return $isTrue;
}

function is(mixed $got, mixed $expected, string $name): bool
{
    $isSame = $got === $expected;
    ok($isSame, $name);
    if (!$isSame) {
        note('got: ' . json_encode($got, JSON_PARTIAL_OUTPUT_ON_ERROR) . "\nexpected: "
            . json_encode($expected, JSON_PARTIAL_OUTPUT_ON_ERROR));
    }
    return $isSame;
}

function skip(string $name, string $why): void
{
    Tap::$run++;
    echo 'ok ', Tap::$run, " - $name # SKIP $why\n";
}

/** Passes if $work throws a $class whose message has $words. */
function fails(callable $work, string $class, string $words, string $name): void
{
    try {
        $work();
        $got = 'no error';
    } catch (Throwable $e) {
        $got = get_class($e) . ': ' . $e->getMessage();
        if ($e instanceof $class && str_contains($e->getMessage(), $words)) {
            ok(true, $name);
            return;
        }
    }
    ok(false, $name);
    note("got: $got");
}

/** Repeats $look until it is true. */
function await(callable $look, float $seconds = 20): bool
{
    $deadline = microtime(true) + $seconds;
    while (!$look()) {
        if (microtime(true) > $deadline) {
            return false;
        }
        usleep(20_000);
    }
    return true;
}

function env(string $name): string
{
    $value = getenv($name);
    return $value === false || $value === ''
        ? throw new RuntimeException("$name is not set") : $value;
}

function pdo(string $portName = 'PGPORT', ?string $database = null): PDO
{
    return new PDO('pgsql:host=' . env('PGHOST') . ';port=' . env($portName) . ';dbname='
        . ($database ?? env('PGDATABASE')), env('PGUSER'), null,
        [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

/** The first column of the first row; null for none. */
function ask(PDO $pdo, string $sql, array $params = []): mixed
{
    $statement = $pdo->prepare($sql, [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
    $statement->execute($params);
    $row = $statement->columnCount() > 0 ? $statement->fetch(PDO::FETCH_NUM) : false;
    return $row === false ? null : $row[0];
}

function redis(): Redis
{
    $redis = new Redis();
    $redis->connect(env('REDIS_HOST'), (int) env('REDIS_PORT'), 1.0);
    $redis->select((int) env('REDIS_DB'));
    return $redis;
}

function predis(array $options = []): Predis\Client
{
    return new Predis\Client(['host' => env('REDIS_HOST'), 'port' => (int) env('REDIS_PORT'),
        'database' => (int) env('REDIS_DB')], $options);
}

function stopRedis(): void
{
    posix_kill((int) env('REDIS_PID'), SIGSTOP);
}

function continueRedis(): void
{
    posix_kill((int) env('REDIS_PID'), SIGCONT);
}
register_shutdown_function('continueRedis');

/** A table with a rule, its rows 1 to 3 as they were. */
function freshTable(PDO $pdo, string $table, string ...$templates): void
{
    $pdo->exec("DROP TABLE IF EXISTS $table");
    $pdo->exec("CREATE TABLE $table (id int PRIMARY KEY, name text)");
    $pdo->exec("INSERT INTO $table SELECT i, 'first' FROM generate_series(1, 3) i");
    ask($pdo, 'SELECT uncache.attach(?, VARIADIC ?::text[])',
        [$table, '{' . implode(',', array_map(fn ($one) => '"' . $one . '"', $templates)) . '}']);
    $pdo->exec("SELECT uncache.invalidate_table('$table')");
    ask($pdo, 'SELECT uncache.wait()');
}

/** What microseconds a call takes, in ms. */
function took(callable $work): float
{
    $start = microtime(true);
    $work();
    return (microtime(true) - $start) * 1000;
}
