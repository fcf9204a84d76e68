# frozen_string_literal: true

module PgUncache
  VERSION = "1.0.0"
end
