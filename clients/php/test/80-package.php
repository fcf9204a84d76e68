<?php

declare(strict_types=1);

// What composer would publish, installed into an empty folder, runs the README's code.

$home = env('WORK') . '/package';
mkdir($home);
$run = function (string $command, array $environment = []) use ($home, &$output): int {
    $all = $environment + getenv() + [];
    $all = ['HOME' => $home, 'COMPOSER_HOME' => "$home/.composer",
        'COMPOSER_ALLOW_SUPERUSER' => '1',
        'COMPOSER_DISABLE_NETWORK' => '1'] + $all;
    $process = proc_open(['/bin/sh', '-c', "($command) 2>&1"], [1 => ['pipe', 'w']], $pipes, $home,
        $all);
    $output = stream_get_contents($pipes[1]);
    $code = proc_close($process);
    if ($code !== 0) {
        note($output);
    }
    return $code;
};
$package = dirname(__DIR__);
mkdir("$home/made");
mkdir("$home/source");
$run("cp -r $package/. source/");
ok($run('composer validate --strict --no-check-publish --working-dir=source') === 0,
    'composer.json is valid');
ok($run('cd source && composer archive --format=zip --dir=../made --file=pg-uncache-1.0.0') === 0,
    'composer archive makes the package');
$run('unzip -l made/pg-uncache-1.0.0.zip');
ok(str_contains($output, 'src/Fence.php') && str_contains($output, 'README.md')
    && !str_contains($output, 'test/'), '... with its source and README, and without its tests');

mkdir("$home/app");
file_put_contents("$home/app/composer.json", json_encode([
    'name' => 'test/app',
    'description' => 'test',
    'repositories' => [
        ['type' => 'package', 'package' => ['version' => '1.0.0',
            'dist' => ['type' => 'zip', 'url' => "$home/made/pg-uncache-1.0.0.zip"]]
            + json_decode(file_get_contents("$package/composer.json"), true)],
        ['packagist.org' => false],
    ],
    'require' => ['pg-uncache/pg-uncache' => '^1.0'],
]));
ok($run('cd app && composer install --no-interaction --no-progress') === 0,
    'composer installs it into an empty folder');

$readme = file_get_contents("$home/app/vendor/pg-uncache/pg-uncache/README.md");
preg_match_all('/^```(\w+)\n(.*?)^```/ms', $readme, $blocks, PREG_SET_ORDER);
$first = fn (string $language) => array_values(array_filter($blocks,
    fn ($block) => $block[1] === $language))[0][2];
$pdo = pdo();
$pdo->exec('DROP TABLE IF EXISTS users');
foreach (array_filter(array_map('trim', explode(';', $first('sql')))) as $statement) {
    if (!preg_match('/CREATE EXTENSION|ALTER SYSTEM/', $statement)) {
        $pdo->exec($statement);
    }
}
$pdo->exec("INSERT INTO users VALUES (1, 'one')");
ask($pdo, "SELECT uncache.invalidate_keys('user:1'), uncache.wait()");
file_put_contents("$home/app/first.php", $first('php'));
$dsn = 'pgsql:host=' . env('PGHOST') . ';port=' . env('PGPORT') . ';dbname=' . env('PGDATABASE')
    . ';user=' . env('PGUSER');
// On a busy machine Redis may take longer than the 50 ms of the package.
await(function () use ($run, $dsn, &$code, &$output) {
    ask(pdo(), "SELECT uncache.invalidate_keys('user:1'), uncache.wait()");
    $code = $run('cd app && php first.php', ['DATABASE_DSN' => $dsn]);
    return $code !== 0 || str_contains($output, '"stored":1');
});
ok($code === 0 && str_contains($output, '"hit":1') && str_contains($output, '"stored":1'),
    "the README's code ends with a fenced hit");
is(redis()->get('user:1'), '{"id":1,"name":"one"}', '... whose value is in Redis');
