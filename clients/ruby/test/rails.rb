# frozen_string_literal: true

require_relative "tap"
require "active_record"
require "active_support"
require "active_support/cache/uncache_store"

ActiveRecord::Base.establish_connection(
  adapter: "postgresql", host: ENV.fetch("PGHOST"), port: ENV.fetch("PGPORT").to_i,
  database: ENV.fetch("PGDATABASE"), username: ENV.fetch("PGUSER"), pool: 60,
  min_messages: "warning"
)
# As in an application that Rails has made.
ActiveRecord::Base.cache_versioning = true

class User < ActiveRecord::Base
  self.table_name = "rails_users"
end

module RailsParts
  module_function

  def table(count = 50)
    db = Servers.table("rails_users", "user:{id}", count)
    db.exec("ALTER TABLE rails_users ADD updated_at timestamp NOT NULL DEFAULT now()")
    db.exec("SELECT uncache.attach('rails_users', 'user:{id}', 'users/{id}', 'app:user:{id}')")
    db.exec("SELECT uncache.invalidate_table('rails_users')")
    db.exec("SELECT uncache.wait()")
    db
  end

  def store(**options)
    ActiveSupport::Cache::UncacheStore.new(
      **{ url: Servers.redis_url, fenced: ["user:", "users/"], expires_in: 60,
          redis_timeout_ms: 1000 }.merge(options)
    )
  end
end
