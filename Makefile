# pg_uncache: an ordinary PGXS extension, plus `make demo` and `make test`.

EXTENSION = pg_uncache
MODULE_big = pg_uncache
DATA = sql/pg_uncache--1.0.sql
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# Before 16 the server's headers give PGDLLEXPORT no meaning, so that nothing at
# all would be left visible.
PG_CPPFLAGS = -I$(srcdir)/src '-DPGDLLEXPORT=__attribute__((visibility("default")))'
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
	-Wno-sign-compare -fvisibility=hidden
SHLIB_LINK = -lhiredis

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Debian's PostgreSQL is built without dependency tracking.
$(OBJS): $(wildcard $(srcdir)/src/*.h)
