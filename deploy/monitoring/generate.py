#!/usr/bin/env python3
"""Write the configurations of exporters, and the dashboard, from one list of metrics.

    generate.py            write them, beside this file
    generate.py --check    exit code 1, and their names, where they are not what it would write

Each exporter has a form of its own for the same thing: a query, and which of its columns is a
label, a counter or a gauge.  The names of the metrics are those of the alerts (alerts.yml) and
of the dashboard.  Edit the lists below, run this, and `make test-monitoring`.
"""
import json
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
HEAD = '# Made by generate.py: edit that.\n'

# Name without "uncache_"; kind; SQL over a row of uncache.stat_databases; help.
METRICS = [
    ('connected', 'gauge', "(state = 'connected')::int", '1 if the worker is connected to Redis'),
    ('paused', 'gauge', "(state = 'paused')::int", '1 if uncache.delivery is off'),
    ('no_worker', 'gauge', "(state = 'no worker')::int", '1 if the database has no worker'),
    ('worker_starts_total', 'counter', 'worker_starts', 'starts of the worker'),
    ('transactions_delivered_total', 'counter', 'transactions_delivered',
     'transactions delivered'),
    ('keys_delivered_total', 'counter', 'keys_delivered',
     'keys for which Redis has answered without an error'),
    ('keys_existed_total', 'counter', 'keys_existed', 'keys that were in Redis'),
    ('batches_total', 'counter', 'batches', 'commands with keys answered'),
    ('retries_total', 'counter', 'retries', 'outbox rows sent again'),
    ('reconnects_total', 'counter', 'reconnects', 'connections after the first'),
    ('waits_total', 'counter', 'waits', 'commits that waited'),
    ('wait_timeouts_total', 'counter', 'wait_timeouts', 'waits that timed out'),
    ('waits_skipped_total', 'counter', 'waits_skipped',
     'commits that did not wait although asked to'),
    ('waiting_backends', 'gauge', 'waiting_backends', 'sessions that wait now'),
    ('patterns_running', 'gauge', 'patterns_running', 'patterns that are looked for now'),
    ('pattern_passes_total', 'counter', 'pattern_passes', 'passes of SCAN'),
    ('ring_used_bytes', 'gauge', 'ring_used', 'bytes of the ring in use'),
    ('ring_size_bytes', 'gauge', 'ring_size', 'bytes of the ring'),
    ('ring_overflows_total', 'counter', 'ring_overflows',
     'transactions that found the ring full'),
    ('keys_refused_total', 'counter', 'keys_refused',
     'keys and patterns that Redis has refused by themselves'),
    ('keys_refused_now', 'gauge', 'keys_refused_now',
     'refused keys and patterns that wait to be tried again'),
    ('fills_plain_total', 'counter', 'fills_plain',
     'values stored by SET under keys that other readers fill fenced, as far as noticed'),
    ('checked_total', 'counter', 'checked', 'hits that readers have compared with the database'),
    ('found_stale_total', 'counter', 'found_stale', 'of these, those that were older'),
    ('stream_entries_total', 'counter', 'stream_entries', 'entries written to uncache.stream'),
    ('stream_entries_lost_total', 'counter', 'stream_entries_lost',
     'entries of uncache.stream that Redis has not taken'),
    ('outbox_rows', 'gauge', 'coalesce(outbox_rows, 0)', 'outbox rows not delivered'),
    ('outbox_bytes', 'gauge', 'coalesce(outbox_bytes, 0)', 'size of the outbox on disk'),
    ('outbox_oldest_seconds', 'gauge',
     'coalesce(extract(epoch FROM outbox_oldest_age), 0)::float8',
     'age of the oldest row not delivered; 0: all is delivered'),
    ('backlog_look_age_seconds', 'gauge',
     'coalesce(extract(epoch FROM clock_timestamp() - backlog_at), 0)::float8',
     'how long ago the worker last looked at its outbox'),
    ('rules_with_problems', 'gauge', 'coalesce(rules_with_problems, 0)',
     'rules with a problem in uncache.rules'),
    ('latency_seconds_sum', 'counter', 'latency_sum_ms / 1000',
     'sum of the times from commit to the answer of Redis'),
    ('fence_on', 'gauge', "coalesce((fence = 'on')::int, 0)", '1 if fenced fills are possible'),
    ('fence_starting', 'gauge', "coalesce((fence = 'starting')::int, 0)",
     '1 if every fenced fill is refused for now'),
    ('fence_superseded', 'gauge', "coalesce((fence = 'superseded')::int, 0)",
     "1 if another server's readers fill"),
    ('fence_not_possible', 'gauge', "coalesce((fence = 'not possible')::int, 0)",
     '1 if Redis does not permit the functions of the fence'),
    ('fills_stored_total', 'counter', 'coalesce(fills_stored, 0)',
     'fenced fills stored, of all databases that use this Redis'),
    ('fills_refused_total', 'counter', 'coalesce(fills_refused, 0)',
     'fenced fills refused, of all databases that use this Redis'),
]

LATENCY_SQL = """SELECT datname,
       CASE WHEN le_ms = 'Infinity' THEN '+Inf' ELSE (le_ms / 1000)::text END AS le,
       count AS bucket
FROM uncache.stat_databases_latency"""
LATENCY_HELP = 'deliveries that took less than le seconds from commit to the answer of Redis'


def sql():
    columns = ',\n       '.join('%s AS %s' % (expression, name)
                               for name, _, expression, _ in METRICS)
    return 'SELECT datname::text,\n       %s\nFROM uncache.stat_databases' % columns


def indent(text, blanks):
    return '\n'.join(' ' * blanks + line for line in text.split('\n'))


def quoted(text):
    return json.dumps(text)


def usage_lines(blanks, names):
    """Columns as postgres_exporter and pg_exporter want them."""
    lines = []
    for name, kind, help_text in names:
        lines.append('%s- %s: {usage: %s, description: %s}' %
                     (' ' * blanks, name, kind.upper(), quoted(help_text)))
    return '\n'.join(lines)


MAIN = [('datname', 'label', 'database')] + [(n, k, h) for n, k, _, h in METRICS]
LATENCY = [('datname', 'label', 'database'), ('le', 'label', 'upper end of the bucket, in seconds'),
           ('bucket', 'counter', LATENCY_HELP)]


def postgres_exporter():
    return HEAD + """#
# For postgres_exporter (Debian's prometheus-postgres-exporter):
#   --extend.query-path=postgres_exporter.yml --disable-default-metrics
# "master" asks once a server, however many databases are discovered.
uncache:
  master: true
  query: |
%s
  metrics:
%s

uncache_latency_seconds:
  master: true
  query: |
%s
  metrics:
%s
""" % (indent(sql(), 4), usage_lines(4, MAIN), indent(LATENCY_SQL, 4), usage_lines(4, LATENCY))


def pg_exporter():
    return HEAD + """#
# For pg_exporter: a file of its configuration folder.  Not tested by running pg_exporter.
uncache:
  name: uncache
  desc: delivery to Redis by pg_uncache, of all databases
  query: |
%s
  ttl: 10
  timeout: 1
  min_version: 150000
  fatal: false
  tags: [cluster, primary]
  metrics:
%s

uncache_latency_seconds:
  name: uncache_latency_seconds
  desc: how long deliveries take, as cumulative buckets
  query: |
%s
  ttl: 10
  timeout: 1
  min_version: 150000
  fatal: false
  tags: [cluster, primary]
  metrics:
%s
""" % (indent(sql(), 4), usage_lines(4, MAIN), indent(LATENCY_SQL, 4), usage_lines(4, LATENCY))


def sql_exporter():
    metrics = []
    for name, kind, _, help_text in METRICS:
        metrics.append("""  - metric_name: uncache_%s
    type: %s
    help: %s
    key_labels: [datname]
    values: [%s]
    query_ref: uncache""" % (name, kind, quoted(help_text), name))
    return HEAD + """#
# For sql_exporter (burningalchemist/sql_exporter, free/sql_exporter): a collector.  Not tested by
# running it; Debian's prometheus-sql-exporter is another program, see prometheus-sql-exporter.yml.
collector_name: uncache
min_interval: 10s

metrics:
%s
  - metric_name: uncache_latency_seconds_bucket
    type: counter
    help: %s
    key_labels: [datname, le]
    values: [bucket]
    query_ref: uncache_latency

queries:
  - query_name: uncache
    query: |
%s
  - query_name: uncache_latency
    query: |
%s
""" % ('\n'.join(metrics), quoted(LATENCY_HELP), indent(sql(), 6), indent(LATENCY_SQL, 6))


def debian_sql_exporter():
    return HEAD + """#
# For Debian's prometheus-sql-exporter (justwatchcom/sql_exporter).  It names every metric
# sql_uncache and has the name in the label "col"; the relabelling in prometheus.yml gives the
# metrics their own names again.
jobs:
  - name: uncache
    interval: '10s'
    connections:
      - 'postgres://monitor@127.0.0.1:5432/postgres?sslmode=disable'
    queries:
      - name: uncache
        help: delivery to Redis by pg_uncache
        labels: [datname]
        values:
%s
        query: |
%s
      - name: uncache_latency
        help: %s
        labels: [datname, le]
        values: [bucket]
        query: |
%s
""" % ('\n'.join('          - ' + name for name, _, _, _ in METRICS), indent(sql(), 10),
       quoted(LATENCY_HELP), indent(LATENCY_SQL, 10))


def pgwatch():
    columns = ',\n       '.join('(%s)::float8 AS %s' % (expression, name)
                               for name, _, expression, _ in METRICS)
    gauges = '\n'.join('      - ' + name for name, kind, _, _ in METRICS if kind == 'gauge')
    return HEAD + """#
# For pgwatch 3: metrics and a preset.  Not tested by running pgwatch, whose Prometheus sink
# puts "pgwatch_" before the names: relabel them for the alerts.
metrics:
  uncache:
    description: delivery to Redis by pg_uncache, of all databases of the server
    sqls:
      15: |
%s
    gauges:
%s
    is_instance_level: true
    node_status: primary
    statement_timeout_seconds: 5
  uncache_latency:
    description: %s
    sqls:
      15: |
        SELECT /* pgwatch_generated */
               (extract(epoch FROM now()) * 1e9)::int8 AS epoch_ns,
               datname::text AS tag_datname,
               CASE WHEN le_ms = 'Infinity' THEN '+Inf'
                    ELSE (le_ms / 1000)::text END AS tag_le,
               count AS bucket
        FROM uncache.stat_databases_latency
    is_instance_level: true
    node_status: primary
    statement_timeout_seconds: 5
presets:
  uncache:
    description: pg_uncache
    metrics:
      uncache: 15
      uncache_latency: 15
""" % (indent("""SELECT /* pgwatch_generated */
       (extract(epoch FROM now()) * 1e9)::int8 AS epoch_ns,
       datname::text AS tag_datname,
       %s
FROM uncache.stat_databases""" % columns, 8), gauges, quoted(LATENCY_HELP))


def otel():
    def metric(name, column, kind, help_text, attributes):
        counter = kind == 'counter'
        return """          - metric_name: uncache_%s
            description: %s
            value_column: %s
            attribute_columns: [%s]
            value_type: double
            data_type: %s%s""" % (name, quoted(help_text), column, ', '.join(attributes),
                                  'sum' if counter else 'gauge',
                                  '\n            monotonic: true' if counter else '')

    main = [metric(n, n, k, h, ['datname']) for n, k, _, h in METRICS]
    return HEAD + """#
# For the OpenTelemetry Collector (contrib): its receiver sqlquery.  Not tested by running it.
# Its exporter "prometheus" appends "_total" to sums: set add_metric_suffixes: false there.
receivers:
  sqlquery/uncache:
    driver: postgres
    datasource: "host=127.0.0.1 port=5432 user=monitor dbname=postgres sslmode=disable"
    collection_interval: 15s
    queries:
      - sql: |
%s
        metrics:
%s
      - sql: |
%s
        metrics:
%s
""" % (indent(sql(), 10), '\n'.join(main), indent(LATENCY_SQL, 10),
       metric('latency_seconds_bucket', 'bucket', 'counter', LATENCY_HELP, ['datname', 'le']))


# ---------------------------------------------------------------------------
# The dashboard
# ---------------------------------------------------------------------------

# Title; unit; what it is for; (legend, query) each; kind; width of 24.
SELECT = '{datname=~"$database"}'
PANELS = [
    ('Connected', 'short', 'Each database: 1 if its worker is connected to Redis.',
     [('{{datname}}', 'uncache_connected%s')], 'stat', 6),
    ('Oldest undelivered', 's', 'How long readers may have seen old values.',
     [('{{datname}}', 'uncache_outbox_oldest_seconds%s')], 'stat', 6),
    ('Outbox on disk', 'bytes', 'A few tables of 16 MB are normal.',
     [('{{datname}}', 'uncache_outbox_bytes%s')], 'stat', 6),
    ('Rules with problems', 'short', 'See uncache.rules in that database.',
     [('{{datname}}', 'uncache_rules_with_problems%s')], 'stat', 6),
    ('Keys deleted a second', 'ops', 'Existed far below delivered: are the templates right?',
     [('{{datname}} delivered', 'rate(uncache_keys_delivered_total%s[$__rate_interval])'),
      ('{{datname}} existed', 'rate(uncache_keys_existed_total%s[$__rate_interval])')],
     'timeseries', 12),
    ('Commit to deleted', 's', 'From commit to the answer of Redis.',
     [('{{datname}} p50', 'histogram_quantile(0.5, sum by (datname, le) '
       '(rate(uncache_latency_seconds_bucket%s[$__rate_interval])))'),
      ('{{datname}} p99', 'histogram_quantile(0.99, sum by (datname, le) '
       '(rate(uncache_latency_seconds_bucket%s[$__rate_interval])))')], 'timeseries', 12),
    ('Backlog', 'short', 'Outbox rows that are not delivered.',
     [('{{datname}}', 'uncache_outbox_rows%s')], 'timeseries', 12),
    ('Age of the backlog', 's', 'Alert above a minute.',
     [('{{datname}}', 'uncache_outbox_oldest_seconds%s')], 'timeseries', 12),
    ('Commits that wait', 'ops', 'Skipped and timed out: these did not read their own writes.',
     [('{{datname}} waited', 'rate(uncache_waits_total%s[$__rate_interval])'),
      ('{{datname}} timed out', 'rate(uncache_wait_timeouts_total%s[$__rate_interval])'),
      ('{{datname}} skipped', 'rate(uncache_waits_skipped_total%s[$__rate_interval])')],
     'timeseries', 12),
    ('Sessions waiting now', 'short', '',
     [('{{datname}}', 'uncache_waiting_backends%s')], 'timeseries', 12),
    ('Outbox on disk', 'bytes', 'Falls when a table of the outbox is emptied as a whole.',
     [('{{datname}}', 'uncache_outbox_bytes%s')], 'timeseries', 12),
    ('Trouble a minute', 'short', 'Reconnects, rows sent again, starts of the worker, refusals.',
     [('{{datname}} reconnects', '60 * rate(uncache_reconnects_total%s[$__rate_interval])'),
      ('{{datname}} sent again', '60 * rate(uncache_retries_total%s[$__rate_interval])'),
      ('{{datname}} worker starts',
       '60 * rate(uncache_worker_starts_total%s[$__rate_interval])'),
      ('{{datname}} refused keys',
       '60 * rate(uncache_keys_refused_total%s[$__rate_interval])')], 'timeseries', 12),
    ('Fenced fills a second', 'ops', 'Of all databases that use the Redis; stale ones by sample.',
     [('{{datname}} stored', 'rate(uncache_fills_stored_total%s[$__rate_interval])'),
      ('{{datname}} refused', 'rate(uncache_fills_refused_total%s[$__rate_interval])'),
      ('{{datname}} found stale', 'rate(uncache_found_stale_total%s[$__rate_interval])')],
     'timeseries', 12),
    ('Patterns', 'short', 'Looked for now, and passes of SCAN a minute.',
     [('{{datname}} running', 'uncache_patterns_running%s'),
      ('{{datname}} passes', '60 * rate(uncache_pattern_passes_total%s[$__rate_interval])')],
     'timeseries', 12),
]


def panel(number, title, unit, description, queries, kind, x, y, width):
    height = 4 if kind == 'stat' else 8
    return {
        'id': number,
        'title': title,
        'description': description,
        'type': kind,
        'datasource': {'type': 'prometheus', 'uid': '${datasource}'},
        'gridPos': {'x': x, 'y': y, 'w': width, 'h': height},
        'fieldConfig': {'defaults': {'unit': unit, 'min': 0}, 'overrides': []},
        'options': {},
        'targets': [{
            'refId': chr(ord('A') + i),
            'datasource': {'type': 'prometheus', 'uid': '${datasource}'},
            'expr': query % SELECT,
            'legendFormat': legend,
        } for i, (legend, query) in enumerate(queries)],
    }


def dashboard():
    panels, x, y, row = [], 0, 0, 0
    for number, (title, unit, description, queries, kind, width) in enumerate(PANELS, 1):
        if x + width > 24:
            x, y = 0, y + row
        panels.append(panel(number, title, unit, description, queries, kind, x, y, width))
        row = panels[-1]['gridPos']['h']
        x += width
    return json.dumps({
        'title': 'pg_uncache',
        'uid': 'pg-uncache',
        'tags': ['postgresql', 'redis', 'pg_uncache'],
        'schemaVersion': 36,
        'version': 1,
        'editable': True,
        'refresh': '30s',
        'time': {'from': 'now-3h', 'to': 'now'},
        'templating': {'list': [
            {'name': 'datasource', 'label': 'Data source', 'type': 'datasource',
             'query': 'prometheus'},
            {'name': 'database', 'label': 'Database', 'type': 'query', 'multi': True,
             'includeAll': True, 'allValue': '.*', 'refresh': 2,
             'current': {'text': 'All', 'value': '$__all'},
             'datasource': {'type': 'prometheus', 'uid': '${datasource}'},
             'query': 'label_values(uncache_connected, datname)'},
        ]},
        'panels': panels,
    }, indent=2) + '\n'


FILES = {
    'postgres_exporter.yml': postgres_exporter,
    'pg_exporter.yml': pg_exporter,
    'sql_exporter.collector.yml': sql_exporter,
    'prometheus-sql-exporter.yml': debian_sql_exporter,
    'pgwatch.yml': pgwatch,
    'otel-sqlquery.yml': otel,
    'dashboard.json': dashboard,
}


def main():
    wrong = []
    for name, make in sorted(FILES.items()):
        path = os.path.join(FOLDER, name)
        text = make()
        if '--check' in sys.argv:
            if not os.path.exists(path) or open(path).read() != text:
                wrong.append(name)
        else:
            with open(path, 'w') as out:
                out.write(text)
    if wrong:
        print('not what generate.py writes: ' + ' '.join(wrong))
    sys.exit(1 if wrong else 0)


main()
