# frozen_string_literal: true

require "pg_uncache/version"
require "pg_uncache/errors"
require "pg_uncache/redis_clients"
require "pg_uncache/link"
require "pg_uncache/flights"
require "pg_uncache/counters"
require "pg_uncache/protocol"
require "pg_uncache/sources"
require "pg_uncache/shadow"
require "pg_uncache/fence"

# Fenced reads through a Redis cache that pg_uncache keeps consistent with PostgreSQL.
module PgUncache
end
