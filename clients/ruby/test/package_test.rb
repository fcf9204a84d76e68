# frozen_string_literal: true

require_relative "tap"
require "fileutils"
require "open3"
require "rbconfig"

include Tap

HERE = File.expand_path("..", __dir__)
WORK = ENV.fetch("WORK")

def run(*command, **options)
  out, status = Open3.capture2e({ "GEM_HOME" => "#{WORK}/gems" }, *command, **options)
  [out, status.success?]
end

# The code block of the README behind <!-- name -->.
def block(name)
  File.read("#{HERE}/README.md")[/<!-- #{name} -->\n```\w+\n(.*?)^```/m, 1]
end

test "the gem" do
  FileUtils.mkdir_p("#{WORK}/empty")
  out, built = run("gem", "build", "pg_uncache.gemspec", "--output", "#{WORK}/pg_uncache.gem",
                   chdir: HERE)
  ok("is built without a warning", built && !out.match?(/WARNING/), out)
  out, installed = run("gem", "install", "--local", "--no-document", "#{WORK}/pg_uncache.gem",
                       chdir: WORK)
  ok("is installed, with no other", installed && Dir["#{WORK}/gems/gems/*"].size == 1, out)
  files = Dir["#{WORK}/gems/gems/pg_uncache-*/**/*"].select { |file| File.file?(file) }
  ok("has what it needs and no more", files.none? { |file| file.include?("/test/") } &&
     files.any? { |file| file.end_with?("cache/uncache_store.rb") }, files)

  Servers.pg.exec(block("setup"))
  File.write("#{WORK}/empty/first.rb", block("first"))
  url = "postgresql://#{ENV.fetch('PGUSER')}@/#{ENV.fetch('PGDATABASE')}" \
        "?host=#{ENV.fetch('PGHOST').gsub('/', '%2F')}&port=#{ENV.fetch('PGPORT')}"
  environment = { "GEM_HOME" => "#{WORK}/gems", "DATABASE_URL" => url, "RUBYLIB" => nil }
  out, ran = Open3.capture2e(environment, RbConfig.ruby, "first.rb", chdir: "#{WORK}/empty")
  ok("comes to a first fenced hit by the README alone",
     ran && out.lines.first(2).uniq.size == 1 && out.match?(/:?hit(=>|: )1.*:?stored(=>|: )1/), out)
end
