"""picture.py: draw the dashboard from what a real Prometheus has, as an SVG.

Grafana is not needed: the panels, their places and their queries are those of dashboard.json.
draw() first lets some minutes go by in which things happen.
"""
import html
import math
import os
import subprocess
import time

COLUMN, ROW, GAP = 46, 34, 6            # pixels of a unit of the dashboard's grid
COLOURS = ['#1f60c4', '#e02f44', '#2f9e44', '#e08400', '#8f3bb8', '#00838f', '#ad8b00', '#6b6b6b']
LIGHT, DARK, LINE = '#ffffff', '#1f2328', '#d0d7de'


def happen(process):
    """What the picture shows: work, Redis hanging for 20 s, a bulk change, a TRUNCATE."""
    def sql(text):
        subprocess.run(['psql', '-XAtq', '-d', 'shop', '-c', text], capture_output=True)

    time.sleep(50)
    os.kill(process, 19)
    time.sleep(20)
    os.kill(process, 18)
    time.sleep(30)
    sql('INSERT INTO item SELECT generate_series(1001, 200000)')
    time.sleep(20)
    sql("BEGIN; DELETE FROM item WHERE id > 1000; SELECT uncache.invalidate_table('item'); COMMIT")
    time.sleep(20)


def number(value, unit):
    if unit == 'bytes':
        for name, size in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
            if abs(value) >= size:
                return '%.3g %s' % (value / size, name)
        return '%.3g B' % value
    if unit == 's':
        return '%.3g s' % value if value >= 1 or value == 0 else '%.3g ms' % (value * 1000)
    return ('%.3g k' % (value / 1000) if abs(value) >= 1000 else '%.3g' % value) + (
        '/s' if unit == 'ops' else '')


def text(x, y, words, size=11, anchor='start', colour=DARK, bold=False):
    return ('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" fill="%s"%s>%s</text>' % (
        x, y, size, anchor, colour, ' font-weight="bold"' if bold else '', html.escape(words)))


def ceiling(value):
    """A round number that is not below the value."""
    if value <= 0:
        return 1
    size = 10 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= value)


def series_of(panel, prometheus, expressions, start, end):
    found = []
    for expression, legend in expressions(panel):
        data = prometheus('query_range', query=expression, start=start, end=end, step=1)
        for one in sorted(data['result'], key=lambda r: sorted(r['metric'].items())):
            if one['metric'].get('job', 'uncache') != 'uncache':
                continue
            points = [(float(t), float(v)) for t, v in one['values'] if v not in ('NaN', '+Inf')]
            name = legend.replace('{{datname}}', one['metric'].get('datname', ''))
            found.append((name, points))
    return found


def draw_numbers(panel, series, x, y, width, height):
    out, n = [], max(len(series), 1)
    for i, (name, points) in enumerate(series):
        middle = x + width * (i + 0.5) / n
        value = points[-1][1] if points else 0
        out.append(text(middle, y + height - 34, number(
            value, panel['fieldConfig']['defaults']['unit']), 24, 'middle', '#2f9e44', True))
        out.append(text(middle, y + height - 14, name, 11, 'middle'))
    return out


def draw_lines(panel, series, x, y, width, height, start, end):
    unit = panel['fieldConfig']['defaults']['unit']
    top = ceiling(max([v for _, points in series for _, v in points] or [1]))
    left, right, above, below = x + 62, x + width - 12, y + 30, y + height - 66
    out = []

    def place(at, value):
        return (left + (right - left) * (at - start) / (end - start),
                below - (below - above) * value / top)

    for part in range(0, 5):
        _, at = place(start, top * part / 4)
        out.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>' % (
            left, at, right, at, LINE))
        out.append(text(left - 6, at + 4, number(top * part / 4, unit), 10, 'end', '#57606a'))
    for minute in range(0, int((end - start) / 60) + 1):
        at, _ = place(start + 60 * minute, 0)
        out.append(text(at, below + 14, '%d min' % minute, 10, 'middle', '#57606a'))
    legend_at, legend_y = left, below + 32
    for i, (name, points) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        path = ' '.join('%.0f,%.1f' % place(*point) for point in points)
        out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="1.4"/>' % (
            path, colour))
        if legend_at + 18 + 5.5 * len(name) > right:
            legend_at, legend_y = left, legend_y + 14
        out.append('<rect x="%.1f" y="%.1f" width="9" height="9" fill="%s"/>' % (
            legend_at, legend_y - 8, colour))
        out.append(text(legend_at + 12, legend_y, name, 9))
        legend_at += 18 + 5.5 * len(name)
    return out


def draw_panel(panel, prometheus, expressions, start, end):
    at = panel['gridPos']
    x, y = at['x'] * COLUMN + GAP, at['y'] * ROW + GAP
    width, height = at['w'] * COLUMN - GAP, at['h'] * ROW - GAP
    series = series_of(panel, prometheus, expressions, start, end)
    out = ['<rect x="%d" y="%d" width="%d" height="%d" rx="3" fill="%s" stroke="%s"/>' % (
        x, y, width, height, LIGHT, LINE), text(x + 10, y + 18, panel['title'], 12, bold=True)]
    if panel['type'] == 'stat':
        return out + draw_numbers(panel, series, x, y, width, height)
    return out + draw_lines(panel, series, x, y, width, height, start, end)


def draw(path, began, process, board, prometheus, expressions):
    happen(process)
    end = time.time() - 2
    start = max(began, end - 145)
    wide = 24 * COLUMN + 2 * GAP
    high = max(p['gridPos']['y'] + p['gridPos']['h'] for p in board['panels']) * ROW + 2 * GAP
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" '
           'font-family="DejaVu Sans, Helvetica, Arial, sans-serif">' % (wide, high),
           '<rect width="%d" height="%d" fill="#f6f8fa"/>' % (wide, high)]
    for panel in board['panels']:
        out += draw_panel(panel, prometheus, expressions, start, end)
    out.append('</svg>')
    with open(path, 'w') as file:
        file.write('\n'.join(out) + '\n')
