#!/usr/bin/env python3
"""Makes the boards: one JSON file for each file of boards/. With --check: says whether that was done.

A new metric gets a panel in the file of its family (FAMILIES); then run this. Each panel says what it shows, and what a rise
(or whatever else is bad) means and asks for.
"""
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
# Where a metric belongs, by the beginning of its name. The first that fits counts.
FAMILIES = {
    "roomcast_gateway_": "gateways",
    "roomcast_aggregator_": "numbers",
    "roomcast_ingest_": "ingest",
    "roomcast_capture_": "ingest",
    "roomcast_nats_": "ingest",
    "": "fleet",
}
# Settings that panels speak of are those of the code.
SOURCES = "\n".join(path.read_text() for path in (HERE.parent.parent / "services").rglob("*.rs"))
# Each board looks at what the variables choose. A label that is not there counts as empty.
CHOSEN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, IN_A_ROW = 8, 7, 3


def unit_of(metric, rated):
    """What a metric is counted in, as Grafana calls it."""
    if "_bytes" in metric:
        return "Bps" if rated else "bytes"
    if rated:
        return "ops"
    return "s" if metric.endswith("_seconds") else "short"


def legend_of(labels, otherwise):
    return " ".join("{{%s}}" % label for label in labels) or otherwise


def series(expr, legend, unit="short"):
    """One line or more: a query as it is written, with {*} for what the variables choose."""
    return [(expr, legend, unit)]


def rate(metric, *by, where="", legend=""):
    """How fast a counter grows, by labels."""
    chosen = "{%s*}" % (where and where + ",")
    group = f'sum by ({", ".join(by)}) ' if by else "sum"
    return series(f"{group}(rate({metric}{chosen}[$__rate_interval]))", legend or legend_of(by, "all"), unit_of(metric, True))


def gauge(metric, *by, fold="sum", legend=""):
    """What a gauge says, folded by labels."""
    group = f'{fold} by ({", ".join(by)}) ' if by else fold
    return series(f"{group}({metric}{{*}})", legend or legend_of(by, "all"), unit_of(metric, False))


def quantiles(metric, *by, of=(0.5, 0.99), legend=""):
    """Quantiles of a histogram."""
    labels = ", ".join(("le",) + by)
    lines = []
    for share in of:
        expr = f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{*}}[$__rate_interval])))"
        lines += series(expr, " ".join(filter(None, [legend, legend_of(by, ""), f"p{share * 100:g}"])), unit_of(metric, False))
    return lines


class Board:
    """A board while it is written down."""

    def __init__(self, name, title, description):
        self.name, self.title, self.description = name, title, description
        self.panels, self.y, self.column = [], 0, 0

    def row(self, title):
        self._next_line()
        self._add({"type": "row", "title": title, "collapsed": False, "panels": []}, {"h": 1, "w": 24, "x": 0, "y": self.y})
        self.y += 1

    def panel(self, title, shows, bad, *lines, unit=None):
        """A panel: what it shows, what is bad about which change and what to do then, and its lines."""
        lines = [line for some in lines for line in some]
        units = [line[2] for line in lines]
        place = {"h": HEIGHT, "w": WIDTH, "x": WIDTH * self.column, "y": self.y}
        self.column += 1
        defaults = {"unit": unit or units[0], "custom": {"lineWidth": 1, "fillOpacity": 8}}
        # Below zero is nothing but a share that is overdrawn.
        if defaults["unit"] != "percentunit":
            defaults["min"] = 0
        panel = {
            "type": "timeseries",
            "title": title,
            "description": f"{shows}\n\n{bad}",
            "datasource": SOURCE,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
            "targets": [
                {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr.replace("*}", CHOSEN + "}"), "legendFormat": legend}
                for at, (expr, legend, _) in enumerate(lines)
            ],
        }
        self._add(panel, place)
        if self.column == IN_A_ROW:
            self._next_line()

    def _next_line(self):
        if self.column:
            self.column, self.y = 0, self.y + HEIGHT

    def _add(self, panel, place):
        self.panels.append({"id": len(self.panels) + 1, **panel, "gridPos": place})

    def json(self):
        return {
            "title": self.title,
            "description": self.description,
            "uid": f"roomcast-{self.name}",
            "tags": ["roomcast"],
            "timezone": "browser",
            "schemaVersion": 39,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "links": [{"type": "dashboards", "title": "Roomcast", "tags": ["roomcast"], "asDropdown": True, "keepTime": True, "includeVars": True}],
            "annotations": {"list": [
                annotation("Deploys", "blue", "A build starts that did not run five minutes ago.",
                           f"count by (service, version, commit) (roomcast_build_info{{{CHOSEN}}}) unless count by (service, version, commit) (roomcast_build_info{{{CHOSEN}}} offset 5m)",
                           "{{service}} {{version}} {{commit}}"),
                annotation("Drains", "orange", "A gateway tells its clients to go elsewhere, because it ends.",
                           f'sum by (instance) (increase(roomcast_gateway_closes_total{{reason="drain",{CHOSEN}}}[$__rate_interval])) > 0',
                           "{{instance}} drains"),
                annotation("Alerts", "red", "An alert fires.", 'count by (alertname) (ALERTS{alertname=~"Roomcast.+",alertstate="firing"})', "{{alertname}}"),
            ]},
            "templating": {"list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("namespace", "label_values(roomcast_build_info, namespace)", ".*"),
                variable("job", 'label_values(roomcast_build_info{namespace=~"$namespace"}, job)', ".+"),
                variable("instance", 'label_values(roomcast_build_info{namespace=~"$namespace",job=~"$job"}, instance)', ".+"),
            ]},
            "panels": self.panels,
        }


def annotation(name, color, _why, expr, text):
    return {"name": name, "datasource": SOURCE, "enable": True, "iconColor": color, "expr": expr, "step": "60s", "titleFormat": name, "textFormat": text}


def variable(name, query, everything):
    return {
        "name": name, "label": name.capitalize(), "type": "query", "datasource": SOURCE, "query": query,
        # With the time range: what has gone is found where it still was.
        "refresh": 2, "includeAll": True, "multi": True, "allValue": everything, "current": {"text": "All", "value": "$__all"},
    }


def misplaced(board):
    """Panels whose first metric belongs to another board, and what is said twice or not at all."""
    titles = set()
    for panel in board.panels:
        if panel["type"] == "row":
            continue
        place = f'{board.name}: {panel["title"]}'
        if panel["title"] in titles:
            yield f"{place}: there is another panel of that name"
        titles.add(panel["title"])
        if not all(part.strip() for part in panel["description"].split("\n\n")):
            yield f"{place}: says too little"
        for setting in re.findall(r"ROOMCAST_\w+", panel["description"]):
            if f'"{setting}"' not in SOURCES:
                yield f"{place}: {setting} is not in the code"
        found = re.search(r"roomcast_\w+", panel["targets"][0]["expr"])
        if found and board.name != "fleet":
            family = next(home for start, home in FAMILIES.items() if found[0].startswith(start))
            if family != board.name:
                yield f"{place}: {found[0]} belongs to {family}"


def boards():
    for path in sorted((HERE / "boards").glob("*.py")):
        words = {"Board": Board, "rate": rate, "gauge": gauge, "quantiles": quantiles, "series": series}
        exec(compile(path.read_text(), str(path), "exec"), words)
        yield words["board"]


def main():
    made = {f"{board.name}.json": board for board in boards()}
    wrong = [what for board in made.values() for what in misplaced(board)]
    stray = {path.name for path in HERE.glob("*.json")} - made.keys()
    wrong += [f"{name} is made of no file of boards/: write its panels there, and remove it" for name in sorted(stray)]
    for name, board in made.items():
        text = json.dumps(board.json(), indent=1) + "\n"
        if "--check" not in sys.argv:
            (HERE / name).write_text(text)
        elif not (HERE / name).exists() or (HERE / name).read_text() != text:
            wrong.append(f"deploy/grafana/{name} is not what boards/ says: deploy/grafana/build.py")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f'{len(made)} boards, {sum(len(b.panels) for b in made.values())} panels and rows')


main()
