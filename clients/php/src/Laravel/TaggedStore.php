<?php

declare(strict_types=1);

namespace PgUncache\Laravel;

use Illuminate\Cache\RetrievesMultipleKeys;
use Illuminate\Contracts\Cache\Store;

/** A store below fenced tags: the same Redis and names as the store, and every key is fenced. */
final class TaggedStore implements Store
{
    use RetrievesMultipleKeys;

    public function __construct(private UncacheStore $store)
    {
    }

    public function get($key)
    {
        return $this->store->getTagged($key);
    }

    public function put($key, $value, $seconds)
    {
        return $this->store->putTagged($key, $value, (int) $seconds);
    }

    public function forever($key, $value)
    {
        return $this->store->putTagged($key, $value, null);
    }

    public function increment($key, $value = 1)
    {
        return false;
    }

    public function decrement($key, $value = 1)
    {
        return false;
    }

    /** Of newer contracts: a value can't be kept longer without a fill. */
    public function touch($key, $seconds)
    {
        return false;
    }

    public function forget($key)
    {
        return $this->store->forget($key);
    }

    public function flush()
    {
        return $this->store->flush();
    }

    public function getPrefix()
    {
        return $this->store->getPrefix();
    }
}
