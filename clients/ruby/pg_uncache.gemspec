# frozen_string_literal: true

require_relative "lib/pg_uncache/version"

Gem::Specification.new do |spec|
  spec.name = "pg_uncache"
  spec.version = PgUncache::VERSION
  spec.summary = "Fenced reads through a Redis cache that pg_uncache keeps consistent"
  spec.description = "A reader that was slower than a writer can't put an old value back into the " \
                     "cache: PgUncache::Fence, and a store for Rails, for databases with the " \
                     "PostgreSQL extension pg_uncache."
  spec.authors = ["pg_uncache contributors"]
  spec.homepage = "https://pgxn.org/dist/pg_uncache"
  spec.license = "PostgreSQL"
  spec.required_ruby_version = ">= 3.0"
  spec.files = Dir["lib/**/*.rb"] + %w[README.md CHANGELOG.md LICENSE]
  spec.extra_rdoc_files = %w[README.md CHANGELOG.md]
  # No dependency: the application has its own Redis client, pg and, with the store, Rails.
end
