"""monitoring.py [PICTURE]: what deploy/monitoring promises, seen by the programs it is for.

servers.sh has started PostgreSQL with two databases, Redis, both exporters of Debian and a
Prometheus.  Prints TAP lines; the last line is "N passed, N failed".
"""
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import yaml

SOURCE = os.path.join(os.environ['PRIVATE'], 'src')
DEPLOY = os.path.join(SOURCE, 'deploy', 'monitoring')
PROMETHEUS = 'http://127.0.0.1:' + os.environ['PROMETHEUS_PORT']
DATABASES = ['postgres', 'shop']
PATIENCE = 120          # seconds for what takes some at most
passed = failed = 0
failures = []


def ok(true, what, *why):
    global passed, failed
    if true:
        passed += 1
    else:
        failed += 1
        failures.append(what)
    print('%sok %d - %s' % ('' if true else 'not ', passed + failed, what))
    for line in ([] if true else why):
        print('# ' + str(line).replace('\n', '\n# '))
    sys.stdout.flush()


def comes_true(what, question):
    """Ask until the answer is true."""
    deadline = time.monotonic() + PATIENCE
    answer = None
    while time.monotonic() < deadline:
        try:
            answer = question()
            if answer:
                break
        except OSError as error:
            answer = error
        time.sleep(0.3)
    ok(answer and not isinstance(answer, OSError), what, answer)
    return answer


def get(url, **arguments):
    if arguments:
        url += '?' + urllib.parse.urlencode(arguments)
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def prometheus(path, **arguments):
    try:
        return json.loads(get(PROMETHEUS + '/api/v1/' + path, **arguments))['data']
    except urllib.error.HTTPError as error:
        return {'error': error.read().decode(), 'result': []}


def query(expression):
    return prometheus('query', query=expression)['result']


def sql(text, database='postgres', user='monitor'):
    return subprocess.run(['psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-U', user, '-d', database,
                           '-c', text], capture_output=True, text=True)


def load_yaml(name):
    with open(os.path.join(DEPLOY, name)) as file:
        return yaml.safe_load(file)


def load_dashboard():
    with open(os.path.join(DEPLOY, 'dashboard.json')) as file:
        return json.load(file)


# ---------------------------------------------------------------------------
# What happens meanwhile
# ---------------------------------------------------------------------------

class Redis:
    """Readers that fill the cache, plainly."""

    def __init__(self):
        self.stopped = False
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.stopped:
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.settimeout(5)
                    link.connect(os.environ['REDIS_SOCKET'])
                    while not self.stopped:
                        key = '%s:%d' % (random.choice(DATABASES), random.randint(1, 100))
                        link.sendall(('SET %s 1 EX 60\r\n' % key).encode())
                        link.recv(100)
                        time.sleep(0.002)
            except OSError:
                time.sleep(0.2)


class FencedReader:
    """A reader that fills through the fence, about twice a second."""

    def __init__(self):
        threading.Thread(target=self.run, daemon=True).start()

    def redis(self, *words):
        return subprocess.run(['redis-cli', '-s', os.environ['REDIS_SOCKET'], '--raw', *words],
                              capture_output=True, text=True).stdout.split('\n')

    def run(self):
        while True:
            key = 'shop:%d' % random.randint(501, 600)
            answer = self.redis('FCALL', 'uncache_get', '1', key)
            if answer[0] == '' and len(answer) > 1 and answer[1]:
                snapshot = sql("SELECT uncache.snapshot('%s')" % answer[1], 'shop').stdout.strip()
                self.redis('FCALL', 'uncache_set', '1', key, snapshot, '3000', '1')
            time.sleep(0.4)


def start_writers(rate=40):
    script = os.path.join(os.environ['PRIVATE'], 'writer.sql')
    with open(script, 'w') as file:
        file.write('\\set id random(1, 100)\nUPDATE item SET n = n + 1 WHERE id = :id;\n')
    for database in DATABASES:
        with open(os.path.join(os.environ['PRIVATE'], 'pgbench.%s.log' % database), 'w') as log:
            subprocess.Popen(['pgbench', '-n', '-c', '2', '-R', str(rate), '-T', '3600', '-f',
                              script, database], stdout=log, stderr=log)


# ---------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------

def metric_names():
    """Of all metrics: of the form for postgres_exporter, which the test runs."""
    names = set()
    for group, what in load_yaml('postgres_exporter.yml').items():
        for column in what['metrics']:
            (name, facts), = column.items()
            if facts['usage'] != 'LABEL':
                names.add('%s_%s' % (group, name))
    return names


def check_files():
    run = subprocess.run([sys.executable, '-B', os.path.join(DEPLOY, 'generate.py'), '--check'],
                         capture_output=True, text=True)
    ok(run.returncode == 0, 'the files are what generate.py writes', run.stdout, run.stderr)
    for command in (['check', 'config', 'prometheus.yml'], ['check', 'rules', 'alerts.yml'],
                    ['test', 'rules', 'alerts_test.yml']):
        run = subprocess.run(['promtool'] + command, cwd=DEPLOY, capture_output=True, text=True)
        ok(run.returncode == 0, 'promtool ' + ' '.join(command), run.stdout, run.stderr)


def check_alerts():
    rules = [rule for group in load_yaml('alerts.yml')['groups'] for rule in group['rules']]
    tested = open(os.path.join(DEPLOY, 'alerts_test.yml')).read()
    used = {name for rule in rules for name in re.findall(r'\buncache_\w+', rule['expr'])}
    unknown = used - metric_names()
    ok(not unknown, 'every metric of an alert exists', unknown)
    ok(all('"%s fires"' % rule['alert'] in tested and '"%s is silent' % rule['alert'] in tested
           for rule in rules), 'each alert is tested to fire, and to be silent')
    for rule in rules:
        file, anchor = rule['annotations']['runbook'].split('#')
        with open(os.path.join(SOURCE, file)) as page:
            anchors = [re.sub(r'[^\w\- ]', '', line.lstrip('# ').strip().lower()).replace(' ', '-')
                       for line in page if line.startswith('#')]
        ok(anchor in anchors, '%s: %s leads to a heading' % (rule['alert'], anchor))


def sound(form, what, allowed, required):
    """Whether a mapping has all that is required, and nothing that is unknown."""
    ok(set(required) <= set(what) <= set(allowed) | set(required), form,
       set(required) - set(what), set(what) - set(allowed) - set(required))


def check_usage(form, document, columns_of):
    for group, what in document.items():
        sound('%s: %s' % (form, group), what,
              ['name', 'desc', 'ttl', 'timeout', 'min_version', 'max_version', 'fatal', 'skip',
               'tags', 'master', 'cache_seconds'], ['query', 'metrics'])
        columns = columns_of(what['query'])
        named = [name for column in what['metrics'] for name in column]
        ok(columns == named, '%s: the query of %s gives the columns that are named' % (form, group),
           columns, named)
        ok(all(facts['usage'] in ('LABEL', 'GAUGE', 'COUNTER')
               for column in what['metrics'] for facts in column.values()),
           '%s: %s has usages that exist' % (form, group))


def columns_of(text):
    """The names of a query's columns; [] where PostgreSQL refuses it."""
    run = sql('CREATE TEMP VIEW v AS ' + text.strip() + ";SELECT attname FROM pg_attribute "
              "WHERE attrelid = 'v'::regclass AND attnum > 0 ORDER BY attnum", user='monitor')
    if run.returncode != 0:
        print('# ' + run.stderr)
    return run.stdout.split()


def check_sql_exporter():
    document = load_yaml('sql_exporter.collector.yml')
    sound('sql_exporter: the collector', document, ['min_interval'],
          ['collector_name', 'metrics', 'queries'])
    queries = {q['query_name']: columns_of(q['query']) for q in document['queries']}
    good = [m for m in document['metrics']
            if set(m) == {'metric_name', 'type', 'help', 'key_labels', 'values', 'query_ref'}
            and m['type'] in ('counter', 'gauge')
            and set(m['key_labels'] + m['values']) <= set(queries[m['query_ref']])]
    ok(len(good) == len(document['metrics']), 'sql_exporter: metrics and their columns')
    ok({m['metric_name'] for m in good} == metric_names(), 'sql_exporter: all metrics are there')


def check_pgwatch():
    document = load_yaml('pgwatch.yml')
    sound('pgwatch: the file', document, [], ['metrics', 'presets'])
    for name, metric in document['metrics'].items():
        sound('pgwatch: ' + name, metric, ['gauges', 'is_instance_level', 'node_status',
                                           'statement_timeout_seconds', 'description'], ['sqls'])
        columns = columns_of(metric['sqls'][15])
        ok(columns[:2] == ['epoch_ns', 'tag_datname'], 'pgwatch: the query of ' + name, columns)
        ok(set(metric.get('gauges', [])) <= set(columns), 'pgwatch: the gauges of ' + name)
    ok(set(document['presets']['uncache']['metrics']) == set(document['metrics']),
       'pgwatch: the preset has all metrics')


def check_otel():
    document = load_yaml('otel-sqlquery.yml')
    receiver = document['receivers']['sqlquery/uncache']
    sound('OpenTelemetry: the receiver', receiver, ['collection_interval'],
          ['driver', 'datasource', 'queries'])
    names = set()
    for one in receiver['queries']:
        columns = columns_of(one['sql'])
        for metric in one['metrics']:
            names.add(metric['metric_name'])
            good = (metric['value_column'] in columns and metric['value_type'] == 'double'
                    and set(metric['attribute_columns']) <= set(columns)
                    and metric['data_type'] in ('sum', 'gauge'))
            if not good:
                ok(False, 'OpenTelemetry: ' + metric['metric_name'], metric)
    ok(names == metric_names(), 'OpenTelemetry: all metrics are there, with columns that exist')


def check_dashboard():
    board = load_dashboard()
    sound('the dashboard', board, ['tags', 'version', 'editable', 'refresh', 'time', 'templating'],
          ['title', 'uid', 'schemaVersion', 'panels'])
    ok(len({p['id'] for p in board['panels']}) == len(board['panels']),
       'each panel has a number of its own')
    taken = set()
    for panel in board['panels']:
        at = panel['gridPos']
        cells = {(x, y) for x in range(at['x'], at['x'] + at['w'])
                 for y in range(at['y'], at['y'] + at['h'])}
        ok(at['x'] + at['w'] <= 24 and not cells & taken and panel['type'] in ('stat', 'timeseries')
           and panel['targets'] and all(t['refId'] and t['expr'] for t in panel['targets']),
           'the panel "%s" is whole, and in a place of its own' % panel['title'])
        taken |= cells


# ---------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------

def exported(port):
    """(name, {label: value}) -> value of what an exporter shows."""
    found = {}
    for line in get('http://127.0.0.1:%s/metrics' % port).split('\n'):
        match = re.match(r'(\w+)\{(.*)\} (\S+)$', line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2)))
            found[match.group(1), tuple(sorted(labels.items()))] = float(match.group(3))
    return found


def check_postgres_exporter():
    port = os.environ['POSTGRES_EXPORTER_PORT']

    def missing():
        there = {(name, dict(labels).get('datname')) for name, labels in exported(port)}
        return [(name, database) for name in metric_names() for database in DATABASES
                if (name, database) not in there]

    comes_true('postgres_exporter shows every metric of both databases', lambda: not missing())
    found = exported(port)
    values = {labels: value for (name, labels), value in found.items()
              if name == 'uncache_connected'}
    ok(sorted(values.values()) == [1, 1], 'both are connected', values)
    bounds = [dict(labels)['le'] for name, labels in found
              if name == 'uncache_latency_seconds_bucket' and dict(labels)['datname'] == 'shop']
    ok(len(bounds) == 22 and '+Inf' in bounds and '0.000128' in bounds, 'with 22 buckets', bounds)


def check_prometheus():
    for job in ('uncache', 'uncache-sql'):
        comes_true('Prometheus has every metric from ' + job, lambda: metric_names() <= {
            r['metric']['__name__'] for r in query('{__name__=~"uncache_.*", job="%s"}' % job)})
        comes_true('keys are counted there', lambda: all(
            float(r['value'][1]) > 0
            for r in query('uncache_keys_delivered_total{job="%s"}' % job)))
    labels = set(query('uncache_connected{job="uncache-sql"}')[0]['metric'])
    ok(labels == {'__name__', 'datname', 'instance', 'job'}, 'with the same labels', labels)
    groups = prometheus('rules')['groups']
    names = {rule['name'] for group in groups for rule in group['rules']}
    ok(len(names) == len(load_yaml('alerts.yml')['groups'][0]['rules']),
       'it has all alerts', names)
    comes_true('and can compute each', lambda: all(
        rule['health'] == 'ok' for group in prometheus('rules')['groups']
        for rule in group['rules']))


def expressions(panel):
    for target in panel['targets']:
        yield (target['expr'].replace('$database', '.*').replace('$__rate_interval', '10s'),
               target['legendFormat'])


def check_queries():
    def answers(expression):
        now = time.time()
        data = prometheus('query_range', query=expression, start=now - 10, end=now, step=1)
        return [r for r in data['result'] if any(v[1] != 'NaN' for v in r['values'])]

    for panel in load_dashboard()['panels']:
        for expression, _ in expressions(panel):
            comes_true('"%s": %s' % (panel['title'], expression), lambda: answers(expression))


def check_outage():
    """An alert comes by itself when Redis goes, and ends when it is back."""
    redis = subprocess.run(['redis-cli', '-s', os.environ['REDIS_SOCKET'], 'info', 'server'],
                           capture_output=True, text=True).stdout
    process = int(re.search(r'process_id:(\d+)', redis).group(1))

    def pending(state):
        return {r['metric']['alertname'] for r in query('ALERTS{alertstate="%s"}' % state)}

    ok('UncacheNotConnected' not in pending('pending') | pending('firing'),
       'no alert of a lost connection while all is well')
    os.kill(process, 19)
    comes_true('Redis hangs, and an alert waits to fire',
               lambda: 'UncacheNotConnected' in pending('pending'))
    comes_true('the outbox grows', lambda: any(
        float(r['value'][1]) > 0 for r in query('uncache_outbox_rows')))
    os.kill(process, 18)
    comes_true('Redis is back, and it does not', lambda: not
               {'UncacheNotConnected'} & pending('pending'))
    comes_true('the backlog is gone', lambda: all(
        float(r['value'][1]) == 0 for r in query('uncache_outbox_oldest_seconds')))
    return process


def main():
    picture = sys.argv[1] if len(sys.argv) > 1 else ''
    began = time.time()
    Redis()
    FencedReader()
    start_writers()
    check_files()
    check_alerts()
    check_usage('postgres_exporter', load_yaml('postgres_exporter.yml'), columns_of)
    check_usage('pg_exporter', load_yaml('pg_exporter.yml'), columns_of)
    check_sql_exporter()
    check_pgwatch()
    check_otel()
    check_dashboard()
    check_postgres_exporter()
    check_prometheus()
    check_queries()
    process = check_outage()
    if picture:
        import picture as drawing
        drawing.draw(picture, began, process, load_dashboard(), prometheus, expressions)
    for what in failures:
        print('failed: monitoring: ' + what)
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
