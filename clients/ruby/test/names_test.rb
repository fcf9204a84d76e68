# frozen_string_literal: true

require_relative "rails"
require "action_controller"
require "action_view"
require "fileutils"

include Tap

# docs/names.md, its part on Rails: each row is carried out, and compared with what lies in Redis
# and with what the template yields.
PAGE = File.expand_path("../../../docs/names.md", __dir__)
RailsParts.table
User.reset_column_information

class Views < ActionController::Base
  self.perform_caching = true
end

def rendered(code, user)
  folder = "#{ENV.fetch('WORK')}/views/users"
  FileUtils.mkdir_p(folder)
  File.write("#{folder}/_user.html.erb", "<% #{code} do %>x<% end %>")
  views = Class.new(Views)
  views.prepend_view_path(File.dirname(folder))
  views.renderer.render(partial: "users/user", locals: { user: user })
end

rows = File.read(PAGE)[/<!-- rails -->(.*?)<!-- \/rails -->/m, 1].lines.grep(/\A\| `/)
ok("docs/names.md has rows of Rails", rows.size > 8)
db = Servers.pg
plain = ActiveSupport::Cache::RedisCacheStore.new(url: Servers.redis_url, expires_in: 60)
redis = Servers.redis

rows.each do |row|
  code, key, template = row.scan(/\| `?(.*?)`? (?=\|)/).flatten
  pattern = /\A#{Regexp.escape(key).gsub('DIGEST', '[0-9a-f]+').gsub('TIME', '\d+')}\z/
  [plain, RailsParts.store(fenced: [""])].each do |store|
    test "#{code} with #{store.class.name}" do
      redis.scan_each(match: "*").reject { |k| k.start_with?("uncache:") }.each { |k| redis.del(k) }
      named = store.class.new(**{ url: Servers.redis_url, namespace: "app", expires_in: 60 }
                              .merge(store.respond_to?(:counters) ? { fenced: [""] } : {}))
      Views.cache_store = store
      code.start_with?("cache") ? rendered(code, User.find(42)) : eval(code)
      keys = redis.scan_each(match: "*").reject { |k| k.start_with?("uncache:") }
      ok("#{code} writes #{key} (#{store.class.name[/\w+\z/]})",
         keys.size == 1 && keys[0].match?(pattern), keys.inspect)
      named.clear
    end
  end
  next if template == "none"

  keys = db.exec_params("SELECT unnest(uncache.render($1, u)) FROM rails_users u WHERE id = 42",
                        [template])
  is("#{template} names it", keys.column_values(0), [key])
end
