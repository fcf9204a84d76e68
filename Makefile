# pg_uncache: an ordinary PGXS extension, plus `make demo`, `make test` and
# `make bench`.
#
#	make, make install, make clean		as with any extension (PG_CONFIG=...)
#	make installcheck	regression tests in a running server that preloads
#						pg_uncache (PGHOST, PGPORT and so on say which)
#	make proof	an application with a plain cache and with a fenced one, side by side
#	make demo, make test	everything, in a temporary folder; nothing else needed
#	make staleness		how stale a cache is under each strategy, as a table and SVG
#	make test-matrix	make test on each major, in systems of their own (as root);
#						make test-matrix-clean removes those
#	make bench	what a write costs, beside other ways; BENCH=--help shows options
#	make test-asserts, test-sanitizers, test-valgrind	some of the tests on a server
#						that looks closer, built from source
#	make test-readers	the examples of docs/readers.md and docs/stream.md; needs npm
#	make test-monitoring	deploy/monitoring: exporters, alerts and dashboard, with a
#						Prometheus; PICTURE=docs/dashboard.svg draws the dashboard
#	make test-containers	deploy/docker and deploy/cloudnative-pg, built and run (as root)
#	make test-clients CLIENTS="node php"	the clients of clients/, each by its own tests
#	make deb, make dist	Debian packages for the majors that this system has, in packages/;
#						the archive for PGXN, pg_uncache-VERSION.zip
#	make test-packages	both, and the README's installation, in fresh Debian systems (as root)
#	make test-upgrade	one version of pg_uncache after, before and beside another; with
#						MAJORS="15 17" pg_upgrade between these (as root)
#	make test-deploy	beside Patroni, pg_repack, pg_partman, pgBackRest
#	make chaos SECONDS=60 SEED=n	writers against an oracle while faults strike
#	make tidy	the order of the folders, names, columns, links; make indent brings the
#				sources into PostgreSQL's style
#	make -C test/unit check	tests of single files that need no server; in make test

EXTENSION = pg_uncache
MODULE_big = pg_uncache
DATA = sql/pg_uncache--1.0.sql

# Where this file is: with VPATH not where the objects go.
TOP := $(dir $(lastword $(MAKEFILE_LIST)))
OBJS = $(patsubst $(TOP)%.c,%.o,$(sort $(wildcard $(TOP)src/*.c $(TOP)src/*/*.c)))

# A regression test counts once it has an expected output (NAME_1.out is another one).
REGRESS = $(sort $(patsubst $(TOP)expected/%.out,%,\
	$(filter-out %_1.out,$(wildcard $(TOP)expected/*.out))))
ISOLATION = $(sort $(patsubst $(TOP)test/specs/%.spec,%,$(wildcard $(TOP)test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(TOP)test

# Before 16 the server's headers give PGDLLEXPORT no meaning, so that nothing at
# all would be left visible.
PG_CPPFLAGS = -I$(srcdir)/src -Isrc '-DPGDLLEXPORT=__attribute__((visibility("default")))'
# Tests and CI add COPT=-Werror; somebody else's newer compiler must not fail.
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
	-Wno-sign-compare -fvisibility=hidden
SHLIB_LINK = -lhiredis

# make CC=clang for a PostgreSQL that was built with gcc: its flags and headers
# say things that clang does not know.
ifneq ($(findstring clang,$(CC)),)
PG_CFLAGS += -Wno-ignored-optimization-argument -Wno-unknown-warning-option \
	-Wno-ignored-attributes -Wno-cast-function-type-strict
endif

# make FAULT_POINTS=1: a library for tests, in which things can be made to go
# wrong (src/base/fault_point.c).  Not for production.  `make clean` in between.
ifeq ($(FAULT_POINTS),1)
PG_CPPFLAGS += -DUNCACHE_FAULT_POINTS
endif

# hiredis 1.0 and later can speak TLS, in a library of its own; what that leaves to
# be done needs OpenSSL's headers.  make HIREDIS_SSL=no builds without it.
HIREDIS_SSL ?= $(shell pkg-config --exists hiredis_ssl openssl 2>/dev/null && echo yes)
ifeq ($(HIREDIS_SSL),yes)
PG_CPPFLAGS += -DHAVE_HIREDIS_SSL
SHLIB_LINK += -lhiredis_ssl -lssl -lcrypto
endif

# c-ares resolves host names without waiting.  make CARES=no builds without it.
CARES ?= $(shell pkg-config --exists libcares 2>/dev/null && echo yes)
ifeq ($(CARES),yes)
PG_CPPFLAGS += -DHAVE_CARES $(shell pkg-config --cflags libcares 2>/dev/null)
SHLIB_LINK += $(shell pkg-config --libs libcares 2>/dev/null)
endif

# Made from the Redis functions, see below.
EXTRA_CLEAN += src/fence/uncache_lua.h

.DEFAULT_GOAL = all

# These install what they need, so they work where there is no PostgreSQL.
PRIVATE_GOALS = demo proof test test-asserts test-sanitizers test-valgrind test-readers \
	test-clients test-monitoring test-containers test-deploy chaos staleness bench \
	test-matrix test-matrix-clean test-packages deb dist test-upgrade tidy indent
.PHONY: $(PRIVATE_GOALS)

# The archive of a release has none of the tests.
ifeq ($(wildcard $(TOP)test/run.sh),)
ifneq ($(filter $(filter-out demo,$(PRIVATE_GOALS)),$(MAKECMDGOALS)),)
$(error make $(MAKECMDGOALS) needs the repository; this is the archive of a release)
endif
endif

demo:
	@bash $(TOP)demo/run.sh
proof:
	@bash $(TOP)demo/proof.sh
test:
	@bash $(TOP)test/run.sh
test-asserts test-sanitizers test-valgrind:
	@bash $(TOP)test/checked/run.sh $(@:test-%=%)
staleness:
	@bash $(TOP)bench/staleness/run.sh

test-matrix:
	@bash $(TOP)test/matrix/run.sh
test-matrix-clean:
	@bash $(TOP)test/matrix/run.sh clean

tidy:
	@prove $(addprefix $(TOP)test/tidy/, tidy_test.t tidy.pl errors.t publish.t \
		indent.t)

indent:
	@bash $(TOP)test/tidy/indent.sh

bench:
	@bash $(TOP)bench/run.sh $(BENCH)

chaos:
	@bash $(TOP)test/chaos/run.sh $(or $(SECONDS),60) $(SEED)

# Beside Patroni, pg_repack, pg_partman and pgBackRest.
test-deploy:
	@bash $(TOP)test/deploy/run.sh

# The examples of docs/readers.md; needs npm.
test-readers:
	@bash $(TOP)test/readers/run.sh

test-monitoring:
	@bash $(TOP)test/monitoring/run.sh $(PICTURE)
test-clients:
	@bash $(TOP)clients/test.sh

test-containers:
	@bash $(TOP)test/containers/run.sh

deb:
	@sh $(TOP)debian/make.sh
dist:
	@sh $(TOP)test/packages/dist.sh
test-packages:
	@bash $(TOP)test/packages/run.sh
test-upgrade:
	@bash $(TOP)test/upgrade/run.sh

ifneq ($(filter-out $(PRIVATE_GOALS),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) does not work; install PostgreSQL's server headers, \
	or say PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

# The Redis functions, as a C string.
src/fence/fence_library.o src/fence/fence_library.bc: src/fence/uncache_lua.h
src/fence/uncache_lua.h: $(TOP)src/fence/uncache.lua | folder
	(echo 'static const char uncache_lua[] ='; \
	 sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/?/\\?/g' -e 's/^/"/' -e 's/$$/\\n"/' $<; \
	 echo ';') > $@

# What this build cannot do, as the last words of make.
has_pkg_config := $(shell command -v pkg-config)
tls_needs = $(if $(has_pkg_config),TLS needs hiredis 1.0 or later with hiredis_ssl$(comma) and \
	OpenSSL's headers.,make finds TLS by pkg-config$(comma) which is not installed.)
cares_needs = $(if $(has_pkg_config),libc-ares-dev,make finds it by pkg-config)
comma := ,
all: tell_limits
.PHONY: tell_limits
tell_limits: $(shlib)
ifneq ($(HIREDIS_SSL),yes)
	@echo "pg_uncache: built without TLS: rediss:// is refused.  $(tls_needs)"
endif
ifneq ($(CARES),yes)
	@echo "pg_uncache: built without c-ares ($(cares_needs)):"
	@echo "while the name of a Redis host is resolved a worker does nothing else, and a silent"
	@echo "name server holds up delivery, DROP DATABASE and shutdown. Use IP addresses."
endif

# Debian's PostgreSQL is built without dependency tracking.
$(OBJS): $(wildcard $(TOP)src/*/*.h) | folder
.PHONY: folder
folder:
	@mkdir -p $(sort $(dir $(OBJS)))

# Without the library preloaded every test would fail, at length.
installcheck: check-preloaded
.PHONY: check-preloaded
check-preloaded:
	@'$(bindir)/psql' -XAtqd postgres -c 'SHOW shared_preload_libraries' | grep -qw pg_uncache || \
		{ echo "The server must run with pg_uncache in shared_preload_libraries." >&2; exit 1; }
endif
