# frozen_string_literal: true

module PgUncache
  class Error < StandardError; end

  # The application uses the client in a way that could store a wrong value.
  class UsageError < Error; end

  # Redis has answered with an error.  It is a reply, so a pipeline goes on behind it.
  class ServerError < Error; end

  # Redis can't be asked at the moment; the caller reads the database and stores nothing.
  class Away < Error; end

  # A connection ended: the server closed it (it may be back already) ...
  class Closed < Away; end

  # ... or did not answer in time.
  class Hung < Away; end
end
