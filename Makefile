# pg_uncache: an ordinary PGXS extension, plus `make demo` and `make test`.
#
#	make, make install, make clean		as with any extension (PG_CONFIG=...)
#	make installcheck	regression tests in a running server that preloads
#						pg_uncache (PGHOST, PGPORT and so on say which)
#	make demo, make test	everything, in a temporary folder; nothing else needed
#	make -C test/unit check	tests of single files that need no server; in make test

EXTENSION = pg_uncache
MODULE_big = pg_uncache
DATA = sql/pg_uncache--1.0.sql

# Where this file is: with VPATH not where the objects go.
TOP := $(dir $(lastword $(MAKEFILE_LIST)))
OBJS = $(patsubst $(TOP)%.c,%.o,$(sort $(wildcard $(TOP)src/*.c)))

# A regression test counts once it has an expected output.
REGRESS = $(sort $(patsubst $(TOP)expected/%.out,%,$(wildcard $(TOP)expected/*.out)))
ISOLATION = $(sort $(patsubst $(TOP)test/specs/%.spec,%,$(wildcard $(TOP)test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(TOP)test

# Before 16 the server's headers give PGDLLEXPORT no meaning, so that nothing at
# all would be left visible.
PG_CPPFLAGS = -I$(srcdir)/src -Isrc '-DPGDLLEXPORT=__attribute__((visibility("default")))'
# Tests and CI add COPT=-Werror; somebody else's newer compiler must not fail.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
	-Wno-sign-compare -fvisibility=hidden
SHLIB_LINK = -lhiredis

# make FAULT_POINTS=1: a library for tests, in which things can be made to go
# wrong (src/faultpoint.c).  Not for production.  `make clean` in between.
ifeq ($(FAULT_POINTS),1)
PG_CPPFLAGS += -DUNCACHE_FAULT_POINTS
endif

# hiredis 1.0 and later can speak TLS, in a library of its own.
ifeq ($(shell pkg-config --exists hiredis_ssl 2>/dev/null && echo yes),yes)
PG_CPPFLAGS += -DHAVE_HIREDIS_SSL
SHLIB_LINK += -lhiredis_ssl
endif

# Made from the Redis functions, see below.
EXTRA_CLEAN += src/uncache_lua.h

.DEFAULT_GOAL = all

# These two install what they need, so they work where there is no PostgreSQL.
.PHONY: demo test test-readers
demo:
	@bash $(TOP)demo/run.sh
test:
	@bash $(TOP)test/run.sh
# The examples of docs/readers.md; takes packages from npm's registry.
test-readers:
	@bash $(TOP)test/readers/run.sh

ifneq ($(filter-out demo test test-readers,$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) does not work; install PostgreSQL's server headers, or say PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

# The Redis functions, as a C string.
src/fence.o: src/uncache_lua.h
src/uncache_lua.h: $(TOP)src/lua/uncache.lua | folder
	(echo 'static const char uncache_lua[] ='; \
	 sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/?/\\?/g' -e 's/^/"/' -e 's/$$/\\n"/' $<; echo ';') > $@

# Debian's PostgreSQL is built without dependency tracking.
$(OBJS): $(wildcard $(TOP)src/*.h) | folder
.PHONY: folder
folder:
	@mkdir -p src

# Without the library preloaded every test would fail, at length.
installcheck: check-preloaded
.PHONY: check-preloaded
check-preloaded:
	@'$(bindir)/psql' -XAtqd postgres -c 'SHOW shared_preload_libraries' | grep -qw pg_uncache || \
		{ echo "The server has to be running with pg_uncache in shared_preload_libraries." >&2; exit 1; }
endif
