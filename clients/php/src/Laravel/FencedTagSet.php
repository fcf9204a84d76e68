<?php

declare(strict_types=1);

namespace PgUncache\Laravel;

use Illuminate\Cache\TagSet;

/**
 * Tags whose ids are filled through the fence: a rule deletes `tag:NAME:key`, and nothing that
 * was stored below the old id is found again.
 *
 * Order matters: the look for a tagged key comes after the id was read, or its fill was
 * answered.  An id that Redis did not take is another one at each call, so that put looks for
 * another key than the get before it, and stores nothing.
 */
final class FencedTagSet extends TagSet
{
    public function tagId($name)
    {
        $id = $this->store->get($this->tagKey($name));
        if (is_string($id) && $id !== '') {
            return $id;
        }
        $id = 'n' . bin2hex(random_bytes(16));
        $this->store->forever($this->tagKey($name), $id);
        return $id;
    }

    /** An id is filled, never set: so the old one goes, and the next look fills a new one. */
    public function resetTag($name)
    {
        $this->flushTag($name);
        return $this->tagId($name);
    }

    public function flushTag($name)
    {
        $this->store->forget($this->tagKey($name));
    }
}
