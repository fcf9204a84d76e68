<?php

declare(strict_types=1);

// Runs the test files of this folder in the order of their names, as one series of TAP lines.

require __DIR__ . '/lib.php';

$only = array_filter(explode(' ', getenv('TESTS') ?: ''));
foreach (glob(__DIR__ . '/[0-9]*.php') as $file) {
    $isWanted = $only === [];
    foreach ($only as $start) {
        $isWanted = $isWanted || str_starts_with(basename($file), $start);
    }
    if ($isWanted) {
        note(basename($file));
        (static function () use ($file) {
            require $file;
        })();
    }
}
exit(Tap::finish());
