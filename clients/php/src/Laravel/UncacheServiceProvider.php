<?php

declare(strict_types=1);

namespace PgUncache\Laravel;

use Illuminate\Support\ServiceProvider;

/**
 * The cache driver `uncache`, for config/cache.php:
 *
 *     'users' => [
 *         'driver' => 'uncache',
 *         'connection' => 'cache',      // of the redis connections in config/database.php
 *         'database' => null,           // connection on which the application reads
 *         'fenced' => ['user:', 'org:'],
 *         // 'prefix', 'ttlMs', 'leaseMs', 'redisTimeoutMs'
 *     ],
 */
final class UncacheServiceProvider extends ServiceProvider
{
    public function boot(): void
    {
        $this->app->make('cache')->extend('uncache', function ($app, array $config) {
            $prefix = $config['prefix'] ?? $app->make('config')['cache.prefix'] ?? '';
            $options = array_intersect_key($config, array_flip(['fenced', 'ttlMs', 'leaseMs',
                'redisTimeoutMs', 'onEvent']));
            return $app->make('cache')->repository(new UncacheStore($app->make('redis'), $prefix,
                $config['connection'] ?? 'default',
                $app->make('db')->connection($config['database'] ?? null), $options));
        });
    }
}
