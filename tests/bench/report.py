"""What scripts/bench says of its measurements: the goals and whether they are reached, tables, a plot.

A round is a dictionary: peer -> {"loads": {load name: figures of bench_load}, "idle": ..., ...}. Every
comparison is made within a round; of the rounds' results the median counts, and the range is shown.
"""

import math
import statistics
from dataclasses import dataclass


def load_name(operation, clients, pipeline):
    return f"{operation} c={clients}" + (f" P={pipeline}" if pipeline > 1 else "")


# ---- Goals ---------------------------------------------------------------------------------------


@dataclass
class Goal:
    """ours / theirs, or ours alone where there is no `theirs`; each is (peer, path into its round)."""

    what: str
    ours: tuple
    theirs: tuple | None
    must: float
    stretch: float
    more_is_better: bool = True
    unit: str = "x"

    def values(self, rounds):
        values = []
        for one in rounds:
            ours = figure(one, self.ours)
            theirs = figure(one, self.theirs) if self.theirs else 1
            if ours is not None and theirs:
                values.append(ours / theirs)
        return values

    def verdict(self, value):
        for bound, word in ((self.stretch, "stretch"), (self.must, "must")):
            if value >= bound if self.more_is_better else value <= bound:
                return word
        return "NOT REACHED"


def figure(one_round, where):
    """The figure at a path, or None where it was not measured."""
    value = one_round
    for step in where:
        value = value.get(step) if value else None
    return value


def load_goal(what, operation, clients, pipeline, metric, peer, must, stretch, ours="seshat", **more):
    path = ("loads", load_name(operation, clients, pipeline), metric)
    return Goal(what, (ours, *path), (peer, *path), must, stretch, **more)


def goals():
    less = {"more_is_better": False}
    rows = []
    for clients, must, stretch in ((1, 2.0, 2.3), (50, 4.0, 5.0), (256, 3.5, 4.9)):
        what = f"SET / etcd, c={clients}"
        rows.append(load_goal(what, "set", clients, 1, "per_second", "etcd", must, stretch))
    for clients, must, stretch in ((1, 0.4, 0.35), (50, 0.25, 0.15), (256, 0.25, 0.15)):
        what = f"SET p99 / etcd, c={clients}"
        rows.append(load_goal(what, "set", clients, 1, "p99_us", "etcd", must, stretch, **less))
    pipelined = ("seshat", "loads", load_name("set", 50, 16), "per_second")
    unpipelined = ("seshat", "loads", load_name("set", 50, 1), "per_second")
    rows.append(Goal("SET c=50 P=16 / the same with P=1", pipelined, unpipelined, 2, 3))
    for clients, must, stretch in ((50, 0.25, 0.20), (256, 0.30, 0.20)):
        what = f"CPU a SET / etcd, c={clients}"
        rows.append(load_goal(what, "set", clients, 1, "server_cpu_us", "etcd", must, stretch, **less))
    what = "SET / Redis 1+2 AOF always WAIT 1, c=50"
    rows.append(load_goal(what, "set", 50, 1, "per_second", "redis-wait", 1.4, 2.0))
    what = "GET by lease / Redis without persistence, c=50"
    rows.append(load_goal(what, "get", 50, 1, "per_second", "redis", 0.6, 0.8))
    rows.append(load_goal(what + " P=16", "get", 50, 16, "per_second", "redis", 0.4, 0.6))
    what = "GET by ReadIndex / the same, c=50"
    index = "seshat-read-index"
    rows.append(load_goal(what, "get", 50, 1, "per_second", "redis", 0.45, 0.55, ours=index))
    ours, theirs = ("seshat", "failover_ms"), ("etcd", "failover_ms")
    rows.append(Goal("failover / etcd at its defaults", ours, theirs, 0.5, 0.3, **less))
    of_nodes = [
        ("memory of an idle node", ("seshat", "idle", "memory_mib"), 60, 40, " MiB"),
        ("memory of a node after the load", ("seshat", "after", "memory_mib"), 200, 100, " MiB"),
        ("idle CPU of the cluster, of a core", ("seshat", "idle", "cpu_percent"), 1.0, 0.5, " %"),
        ("elections during all loads of a round", ("seshat", "after", "elections"), 0, 0, ""),
    ]
    for what, path, must, stretch, unit in of_nodes:
        rows.append(Goal(what, path, None, must, stretch, unit=unit, **less))
    return rows


# Goals that this program does not measure; they stand in the table so that nobody takes it for whole.
NOT_MEASURED = [
    "elections in 10 minutes at c=256",
    "throughput with 3 million keys / with 10,000 (scripts/bench-scale)",
    "throughput with 10,000 idle connections / with none (scripts/bench-scale)",
]


def judged(rounds, which=None):
    """The rows of the table of goals, as they stand in results.json; without `which`, of all of them."""
    rows = []
    for goal in goals() if which is None else which:
        values = goal.values(rounds)
        row = {"goal": goal.what, "must": goal.must, "stretch": goal.stretch, "unit": goal.unit}
        row["direction"] = "at least" if goal.more_is_better else "at most"
        if values:
            row["median"], row["range"] = statistics.median(values), [min(values), max(values)]
        row["verdict"] = goal.verdict(row["median"]) if values else "not measured"
        rows.append(row)
    return rows


# ---- Text ----------------------------------------------------------------------------------------


def short(number):
    """Three digits that count, and no exponent: 0.0123, 1.23, 123, 123,456."""
    if number == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def table(header, rows):
    """Columns as wide as they must be; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def goals_text(rows, not_measured=NOT_MEASURED):
    lines = []
    for row in rows:
        unit = row["unit"]
        measured = "median" in row
        low, high = row["range"] if measured else (0, 0)
        lines.append([
            row["goal"],
            short(row["median"]) + unit if measured else "-",
            f"{short(low)} .. {short(high)}" if measured else "-",
            f"{row['direction']} {row['must']:g}{unit}",
            f"{row['stretch']:g}{unit}",
            row["verdict"],
        ])  # fmt: skip
    lines += [[what, "-", "-", "-", "-", "not by this program"] for what in not_measured]
    return table(["goal", "median", "range", "must", "stretch", "reached"], lines)


def spread(rounds, path):
    """Median, smallest, largest of a figure; None where it was not measured."""
    values = [value for one in rounds if (value := figure(one, path)) is not None]
    return (statistics.median(values), min(values), max(values)) if values else None


METRICS_OF_TEXT = ["p50_us", "p99_us", "p999_us", "server_cpu_us", "generator_cpu_us"]


def loads_text(rounds, loads, peers):
    lines = []
    for name in loads:
        for peer, title in peers.items():
            path = (peer, "loads", name)
            rate = spread(rounds, (*path, "per_second"))
            if rate is None:
                continue
            cells = [short(spread(rounds, (*path, metric))[0]) for metric in METRICS_OF_TEXT]
            limit = any(figure(one, (*path, "generator_is_bottleneck")) for one in rounds)
            lines.append(
                [f"{name}  {title}", short(rate[0]), f"{short(rate[1])} .. {short(rate[2])}", *cells]
                + ["generator is the limit" if limit else ""]
            )
    header = ["load", "per second", "range", "p50 us", "p99 us", "p99.9 us", "CPU us", "gen. CPU us", ""]
    return table(header, lines)


# ---- Plot ----------------------------------------------------------------------------------------

COLOURS = {
    "seshat": "#c1121f",
    "seshat-read-index": "#f4845f",
    "etcd": "#1d70b7",
    "redis-wait": "#2a7f3f",
    "redis-aof": "#8a6d1f",
    "redis": "#6b7280",
    # The series of scripts/bench-scale.
    "set": "#c1121f",
    "get": "#1d70b7",
}
PANEL_WIDTH, PANEL_HEIGHT = 330, 250
LEFT, TOP, RIGHT, BOTTOM = 66, 34, 14, 34  # margins in a panel
METRICS = [
    ("per_second", "operations a second"),
    ("p99_us", "p99, us"),
    ("server_cpu_us", "server CPU an operation, us"),
]


def text(x, y, words, anchor="start", size=12, colour="#1f2937"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{words}</text>'
    )


def line(x1, y1, x2, y2, colour, width=1.0):
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


class Panel:
    """One metric of all peers over the loads of an operation; the y axis goes by powers of ten."""

    def __init__(self, rounds, peers, loads, metric, title):
        self.loads, self.title = loads, title
        self.series = {}
        for peer in peers:
            points = [spread(rounds, (peer, "loads", name, metric)) for name in loads]
            if any(point and point[1] > 0 for point in points):
                self.series[peer] = [point if point and point[1] > 0 else None for point in points]
        values = [value for points in self.series.values() for point in points if point for value in point]
        self.low = math.floor(math.log10(min(values))) if values else 0
        self.high = max(self.low + 1, math.ceil(math.log10(max(values)))) if values else 1

    def x(self, step):
        return LEFT + (PANEL_WIDTH - LEFT - RIGHT) * (step + 0.5) / len(self.loads)

    def y(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - TOP - BOTTOM) * share

    def svg(self):
        parts = [text(LEFT, 20, self.title, size=13)]
        for power in range(self.low, self.high + 1):
            y = self.y(10**power)
            parts.append(line(LEFT, y, PANEL_WIDTH - RIGHT, y, "#d1d5db"))
            parts.append(text(LEFT - 6, y + 4, f"{10**power:,}", "end", 11))
        for step, name in enumerate(self.loads):
            parts.append(text(self.x(step), PANEL_HEIGHT - BOTTOM + 18, name.split(" ", 1)[1], "middle", 11))
        for peer, points in self.series.items():
            parts += self.drawn(points, COLOURS[peer])
        return "\n".join(parts)

    def drawn(self, points, colour):
        """A dot at each median, a bar over its range, a line through those without pipelines."""
        parts = []
        before = None
        for step, point in enumerate(points):
            if point is None:
                continue
            x, (median, low, high) = self.x(step), point
            parts.append(line(x, self.y(low), x, self.y(high), colour, 3))
            parts.append(f'<circle cx="{x:.1f}" cy="{self.y(median):.1f}" r="4" fill="{colour}"/>')
            if " P=" in self.loads[step]:
                continue
            if before:
                parts.append(line(*before, x, self.y(median), colour, 1.8))
            before = (x, self.y(median))
        return parts


def plot(rounds, loads, peers, caption):
    """An SVG: a row of panels for each operation, a column for each metric."""
    operations = sorted({name.split(" ")[0] for name in loads}, reverse=True)
    panels = []
    for operation in operations:
        names = [name for name in loads if name.startswith(operation + " ")]
        panels += [
            Panel(rounds, peers, names, metric, f"{operation.upper()}: {title}") for metric, title in METRICS
        ]
    return drawing(panels, len(METRICS), peers, caption)


def drawing(panels, columns, series, caption):
    """An SVG of panels, row by row, under a caption and the names of the series."""
    width, top = PANEL_WIDTH * columns, 66
    height = top + PANEL_HEIGHT * math.ceil(len(panels) / columns) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        text(LEFT, 24, caption, size=12),
    ]
    for i, (name, title) in enumerate(series.items()):
        x = 20 + i * (width - 20) / len(series)
        parts.append(f'<circle cx="{x:.1f}" cy="46" r="5" fill="{COLOURS[name]}"/>')
        parts.append(text(x + 9, 50, title, size=11))
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        parts.append(f'<g transform="translate({column * PANEL_WIDTH},{top + row * PANEL_HEIGHT})">')
        parts += [panel.svg(), "</g>"]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
