<?php

declare(strict_types=1);

// laravel.php: what a Laravel application has of its framework: cache, redis, db, events.

use Illuminate\Cache\CacheManager;
use Illuminate\Container\Container;
use Illuminate\Database\Capsule\Manager as Capsule;
use Illuminate\Events\Dispatcher;
use Illuminate\Redis\RedisManager;
use PgUncache\Laravel\UncacheServiceProvider;

/** Laravel's container asks this of an application. */
final class Application extends Container
{
    public function isProduction(): bool
    {
        return false;
    }
}

/**
 * @param string $client phpredis or predis
 * @param array $store over those of the store "users"
 */
function laravel(string $client = 'phpredis', array $store = [],
    string $prefix = 'laravel_database_',
    string $port = 'PGPORT'): Application
{
    $app = new Application();
    $events = new Dispatcher($app);
    $redis = ['host' => env('REDIS_HOST'), 'port' => (int) env('REDIS_PORT'), 'password' => null,
        'database' => (int) env('REDIS_DB'), 'timeout' => 10];
    $app['config'] = new ArrayObject([
        'cache.prefix' => 'laravel_cache',
        'cache.default' => 'users',
        'cache.stores.users' => $store + PATIENT + ['driver' => 'uncache', 'connection' => 'cache',
            'database' => null, 'fenced' => ['user:', 'tag:org.']],
        'cache.stores.redis' => ['driver' => 'redis', 'connection' => 'cache'],
        'database.redis' => ['client' => $client, 'options' => ['prefix' => $prefix],
            'default' => $redis, 'cache' => $redis],
    ]);
    $capsule = new Capsule();
    $capsule->addConnection(['driver' => 'pgsql', 'host' => env('PGHOST'), 'port' => env($port),
        'database' => env('PGDATABASE'), 'username' => env('PGUSER'), 'password' => null]);
    $capsule->setEventDispatcher($events);
    $app['events'] = $events;
    $app['db'] = $capsule->getDatabaseManager();
    $app['redis'] = new RedisManager($app, $client, $app['config']['database.redis']);
    $app['cache'] = new CacheManager($app);
    (new UncacheServiceProvider($app))->boot();
    return $app;
}
