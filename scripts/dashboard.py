#!/usr/bin/env python3
"""Makes deploy/grafana/callgate.json, the dashboard for Grafana 11 and later, from the list below.

    scripts/dashboard.py            write it
    scripts/dashboard.py --check    exit with 1 if the file is not what would be written
    scripts/dashboard.py --queries  print every query as JSON: [{panel, expr}]
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).resolve().parent.parent / "deploy/grafana/callgate.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24

# The label filters of every query. ROUTE is for series with the label `route`.
ALL = 'job=~"$job", instance=~"$instance"'
ROUTE = ALL + ', route=~"$route"'


def rate(metric, labels=ALL, by="", more=""):
    """Returns a query for the rate of a counter, summed by labels."""
    over = f" by ({by}) " if by else ""
    return f"sum{over}(rate({metric}{{{labels}{more}}}[$__rate_interval]))"


def share(metric, labels, of):
    """Returns a query for the share of some series in the rate of a counter."""
    return f"{rate(metric, labels, more=', ' + of)} / {rate(metric, labels)}"


def quantile(share, metric, labels=ALL, by=""):
    by = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def gauge(how, metric, labels=ALL, by="", more=""):
    return f"{how} by ({by}) ({metric}{{{labels}{more}}})" if by else f"{how}({metric}{{{labels}{more}}})"


def graph(title, unit, *queries, says="", width=8, stacked=False):
    return {"kind": "timeseries", "title": title, "unit": unit, "queries": queries, "says": says, "width": width,
            "stacked": stacked}


def number(title, unit, query, says="", red_above=None):
    return {"kind": "stat", "title": title, "unit": unit, "queries": [query], "says": says, "width": 4, "red_above": red_above}


REQUESTS = "callgate_ingress_requests_total"
ROWS = [
    ("Overview", [
        number("Callbacks taken", "reqps", (rate(REQUESTS, ROUTE, more=', verdict="allow", reason!="handed_over"'), ""),
               "Delivered, or answered here: duplicates, handshakes. Each counts once, at the replica that owns it."),
        number("Refused", "percentunit",
               (share(REQUESTS, ROUTE, 'verdict="deny"'), ""),
               "Share of the requests that were refused. Scanners are in it."),
        number("Not delivered", "percentunit",
               (share(REQUESTS, ROUTE, 'verdict="fail"'), ""),
               "Share of the requests that were permitted and could not be delivered.", red_above=0.05),
        number("Open interactions", "short", (gauge("sum", "callgate_interactions_open", ROUTE), "")),
        number("Configuration not taken", "short", (gauge("sum", "callgate_config_reload_failed"), ""),
               "Processes whose files hold something else than what they serve.", red_above=1),
        number("Routes that only observe", "short", (gauge("max", "callgate_routes_observing"), ""), red_above=1),
        graph("Requests by verdict", "reqps", (rate(REQUESTS, ROUTE, "verdict"), "{{verdict}}"), stacked=True),
        graph("Time to decide", "s",
              (quantile(0.5, "callgate_ingress_decide_seconds"), "half"),
              (quantile(0.99, "callgate_ingress_decide_seconds"), "99 of 100"),
              says="Waiting for a caller's bytes is not in it."),
        graph("Time to deliver", "s",
              (quantile(0.5, "callgate_deliver_seconds", ROUTE, "route"), "{{route}}: half"),
              (quantile(0.9, "callgate_deliver_seconds", ROUTE, "route"), "{{route}}: 9 of 10"),
              says="From the permit to the end of the agent's answer."),
        graph("Requests to agents", "reqps",
              (rate("callgate_agent_requests_total", by="agent, result") + " > 0", "{{agent}} {{result}}"),
              says="Callbacks, notices, streams, and attempts of the inbox. `rejected` is an answer with an error, and all others but `accepted` are failures."),
        graph("Rejected by the agent", "reqps", (rate("callgate_deliver_rejected_total", ROUTE, "route") + " > 0", "{{route}}"),
              says="Callbacks that were delivered, and that the agent answered with an error such as 404 or 500."),
        graph("Alerts", "short", ('sum by (alertname, alertstate) (ALERTS{alertname=~"Callgate.+"})', "{{alertname}} {{alertstate}}")),
        graph("Configuration", "short", (gauge("max", "callgate_config_generation", by="instance"), "{{instance}}"),
              says="How often one was taken; processes that differ were started or reloaded at different times."),
        graph("Routes that observe or stream", "short",
              (gauge("max", "callgate_routes_observing", by="instance"), "{{instance}} observe"),
              (gauge("max", "callgate_routes_streaming", by="instance"), "{{instance}} stream"),
              says="Requests on these routes reach the agent without all checks."),
        graph("Versions", "short", ("sum by (version) (callgate_build_info{" + ALL + "})", "{{version}}"), stacked=True),
    ]),
    ("Refusals", [
        graph("By reason", "reqps", (rate("callgate_ingress_refusals_total", by="reason") + " > 0", "{{reason}}"),
              says="Over all routes; docs/denials.md says what each means."),
        graph("By route and reason", "reqps", (rate(REQUESTS, ROUTE, "route, reason", ', verdict=~"deny|fail"'), "{{route}} {{reason}}")),
        graph("By provider", "reqps", (rate(REQUESTS, ROUTE, "provider", ', verdict=~"deny|fail"'), "{{provider}}")),
        graph("What would have been refused", "reqps",
              (rate("callgate_observed_denials_total", ROUTE, "route, reason"), "{{route}} {{reason}}"),
              says="On routes that only observe."),
        graph("Against what is usual", "reqps",
              ('job_reason:callgate_ingress_refusals:rate5m{job=~"$job"} > 0', "{{reason}}"),
              ('job_reason:callgate_ingress_refusals:rate5m_median1d{job=~"$job"} > 0', "{{reason}}: a day's median"),
              says="Recording rules of deploy/prometheus/rules.yaml."),
        graph("Action endpoints refused", "reqps", (rate("callgate_guard_refusals_total", by="class") + " > 0", "{{class}}")),
    ]),
    ("Interactions", [
        graph("Open", "short", (gauge("sum", "callgate_interactions_open", ROUTE, "route"), "{{route}}"), stacked=True),
        graph("Ended, by outcome", "cps", (rate("callgate_interactions_ended_total", ROUTE, "outcome"), "{{outcome}}"), stacked=True),
        graph("Age of the oldest open one", "s", (gauge("max", "callgate_interactions_oldest_age_seconds", ROUTE, "route"), "{{route}}")),
        graph("Callbacks minted", "cps", (rate("callgate_callbacks_minted_total", ROUTE, "route"), "{{route}}")),
        graph("Inbox: messages", "short",
              (gauge("max", "callgate_inbox_waiting", ROUTE, "route"), "{{route}} waiting"),
              (gauge("max", "callgate_inbox_dead", ROUTE, "route"), "{{route}} dead")),
        graph("Inbox: age of the oldest message", "s", (gauge("max", "callgate_inbox_oldest_seconds", ROUTE, "route"), "{{route}}")),
        graph("Inbox: attempts, by result", "cps", (rate("callgate_inbox_attempts_total", ROUTE, "result"), "{{result}}"), stacked=True),
        graph("Notices to the agent", "cps", (rate("callgate_notices_total", ROUTE, "cause, outcome"), "{{cause}} {{outcome}}")),
        graph("Duplicates, overtaken, unreadable, adopted", "cps",
              (rate("callgate_duplicates_total", ROUTE, "route"), "{{route}} duplicate"),
              (rate("callgate_stale_total", ROUTE, "route, handling"), "{{route}} overtaken, {{handling}}"),
              (rate("callgate_reports_unreadable_total", ROUTE, "route"), "{{route}} unreadable"),
              (rate("callgate_interactions_adopted_total", ROUTE, "route"), "{{route}} adopted")),
        graph("Ledger", "short",
              (gauge("max", "callgate_store_interactions", by="instance"), "{{instance}} interactions"),
              (gauge("max", "callgate_store_interactions_kept", by="instance"), "{{instance}} ended, kept"),
              (gauge("max", "callgate_store_interactions_max", by="instance"), "{{instance}} most"),
              (gauge("max", "callgate_store_events", by="instance"), "{{instance}} events"),
              (gauge("max", "callgate_store_events_max", by="instance"), "{{instance}} most events")),
        graph("Time to write the ledger", "s",
              (quantile(0.5, "callgate_store_commit_seconds", by="instance"), "{{instance}}: half"),
              (quantile(0.99, "callgate_store_commit_seconds", by="instance"), "{{instance}}: 99 of 100")),
        graph("Ledger in trouble", "short",
              (gauge("max", "callgate_store_failed", by="instance"), "{{instance}} cannot be written"),
              (rate("callgate_store_events_forgotten_total", by="instance"), "{{instance}} events forgotten a second")),
    ]),
    ("Ledger on Redis or Valkey", [
        number("Processes", "short", (gauge("max", "callgate_members"), ""),
               "Processes that share the ledger and were heard of in the last 15 seconds. With the section `replicas`, the replicas that are present."),
        number("Not available", "short", (gauge("sum", "callgate_store_failed"), ""),
               "Processes to which the store has not answered for `store.grace`, or whose settings are not acceptable.", red_above=1),
        number("Store replaced", "short", (gauge("max", "callgate_store_replaced"), ""),
               "1 if the data was replaced since a process started, so that interactions may be missing.", red_above=1),
        number("Callbacks with 503", "reqps", (rate("callgate_ingress_refusals_total", more=', reason="store_unavailable"'), ""),
               "The store did not answer in time. Providers send them again.", red_above=1),
        number("Clock difference", "s", ("max(abs(callgate_store_clock_skew_seconds{" + ALL + "}))", ""),
               "Deadlines follow the clock of the store.", red_above=5),
        graph("Time of a call, 99 of 100", "s",
              (quantile(0.99, "callgate_store_call_seconds", by="call"), "{{call}}"),
              says="With its repetitions. A call of a claim or a settlement is `cas`, without an interaction `claim_event` and `settle_event`."),
        graph("Calls", "ops", (rate("callgate_store_call_seconds_count", by="call"), "{{call}}"), stacked=True),
        graph("Conflicts and lost responses", "cps",
              (rate("callgate_store_conflicts_total", by="instance"), "{{instance}} decided again"),
              (rate("callgate_store_unknown_outcomes_total", by="instance"), "{{instance}} response lost"),
              says="Conflicts are normal if several processes change one interaction. Lost responses are looked up."),
    ]),
    ("Replicas", [
        number("Members", "short", (gauge("max", "callgate_members"), ""),
               "Members that one replica knows, including itself. 0 without the section `replicas`."),
        number("Replicas that are scraped", "short", ("count(callgate_members{" + ALL + "} > 0)", ""),
               "With the section `replicas`. Each of them should know all the others."),
        number("Owner unreachable", "reqps", (rate("callgate_ingress_refusals_total", more=', reason="owner_unreachable"'), ""),
               "Callbacks with 503 because the replica that owns them does not answer. Some are normal in a rollout.", red_above=1),
        number("Owner gone, 15 minutes", "short", ("sum(increase(callgate_owner_gone_total{" + ALL + "}[15m]))", ""),
               "Callbacks of processes that ended without handing their ledger over.", red_above=1),
        number("Handed over", "percentunit", (rate("callgate_replica_requests_total", more=', outcome=~"answered|refused"') + " / " + rate(REQUESTS), ""),
               "Share of the requests that went on to another replica."),
        number("Denied proofs, 15 minutes", "short", ("sum(increase(callgate_replica_denied_total{" + ALL + "}[15m]))", ""),
               "Requests to the replica listener without a valid proof.", red_above=5),
        graph("Members that each replica knows", "short", (gauge("max", "callgate_members", by="instance"), "{{instance}}"),
              says="They differ only while replicas start and stop."),
        graph("Hand-overs of callbacks, by outcome", "reqps",
              (rate("callgate_replica_requests_total", by="outcome") + " > 0", "{{outcome}}"),
              says="Attempts. Everything but `answered` is a retry, a rollout or a fault."),
        graph("Time to the owner's response", "s",
              (quantile(0.5, "callgate_replica_seconds"), "half"),
              (quantile(0.9, "callgate_replica_seconds"), "9 of 10"),
              (quantile(0.99, "callgate_replica_seconds"), "99 of 100"),
              says="The time of the owner's agent is in it."),
        graph("Callbacks whose owner is gone", "reqps", (rate("callgate_owner_gone_total", by="did") + " > 0", "{{did}}")),
        graph("Interactions handed over", "short",
              ("sum by (instance) (increase(callgate_ledger_taken_over_total{" + ALL + "}[$__rate_interval])) > 0", "{{instance}} has taken over"),
              ("sum by (instance, result) (callgate_ledger_handed_over_total{" + ALL + "}) > 0", "{{instance}} {{result}}"),
              says="A process ends right after it has handed its ledger over, so its own numbers are rarely seen."),
        graph("Denied proofs", "reqps", (rate("callgate_replica_denied_total", by="instance") + " > 0", "{{instance}}")),
    ]),
    ("Egress", [
        graph("The agent's requests", "reqps", (rate("callgate_egress_requests_total", by="rule, verdict"), "{{rule}} {{verdict}}")),
        graph("Not sent or not answered", "reqps",
              (rate("callgate_egress_requests_total", by="rule, reason", more=', verdict=~"deny|fail"'), "{{rule}} {{reason}}")),
        graph("Time to the provider's answer", "s",
              (quantile(0.5, "callgate_egress_seconds", by="rule"), "{{rule}}: half"),
              (quantile(0.9, "callgate_egress_seconds", by="rule"), "{{rule}}: 9 of 10")),
    ]),
    ("Certificates and feeds", [
        graph("Certificates end in", "s",
              ("min by (certificate) (callgate_certificate_expiry_timestamp_seconds{" + ALL + "} - time())", "{{certificate}}")),
        graph("Age of what is fetched", "s", (gauge("max", "callgate_feed_age_seconds", by="feed"), "{{feed}}")),
        graph("Fetches", "cps", (rate("callgate_feed_fetches_total", by="feed, outcome"), "{{feed}} {{outcome}}")),
        graph("Handshakes of providers", "cps", (rate("callgate_handshakes_total", ROUTE, "route, handshake"), "{{route}} {{handshake}}")),
        graph("Reloads", "cps", (rate("callgate_config_reloads_total", by="outcome"), "{{outcome}}")),
        graph("Age of the configuration", "s",
              ("max by (instance) (time() - callgate_config_loaded_timestamp_seconds{" + ALL + "})", "{{instance}}")),
    ]),
    ("Edge", [
        graph("Connections", "short", (gauge("sum", "callgate_ingress_connections", by="instance"), "{{instance}}")),
        graph("Connections closed before a request", "cps",
              (rate("callgate_ingress_connections_refused_total", by="reason") + " > 0", "{{reason}}")),
        graph("Memory for bodies", "bytes", (gauge("max", "callgate_body_bytes_held", by="instance"), "{{instance}}"),
              ("callgate:body_memory_max:bytes", "limit")),
        graph("Access-log lines lost", "cps", (rate("callgate_access_log_lines_lost_total", by="instance"), "{{instance}}")),
        graph("Batches of spans", "cps", (rate("callgate_trace_batches_total", by="outcome"), "{{outcome}}"),
              says="Handed to the collector of traces, or lost."),
    ]),
    ("Process", [
        graph("CPU", "short", (rate("process_cpu_seconds_total", by="instance"), "{{instance}}"), says="Processors in use."),
        graph("Memory", "bytes", (gauge("max", "process_resident_memory_bytes", by="instance"), "{{instance}}")),
        graph("Open file descriptors", "short",
              (gauge("max", "process_open_fds", by="instance"), "{{instance}}"),
              (gauge("max", "process_max_fds", by="instance"), "{{instance}} most"),
              says="Each connection takes one or two."),
    ]),
]


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "definition": query,
            "query": {"qryType": 1, "query": query, "refId": "StandardVariableQuery"}, "refresh": 2, "sort": 1,
            "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            "options": []}


def targets(panel):
    return [{"datasource": SOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend or "__auto",
             "range": True, "refId": chr(ord("A") + i)} for i, (expr, legend) in enumerate(panel["queries"])]


def drawn(panel, number_, x, y):
    made = {"id": number_, "type": panel["kind"], "title": panel["title"], "description": panel["says"],
            "datasource": SOURCE, "gridPos": {"h": 4 if panel["kind"] == "stat" else 8, "w": panel["width"], "x": x, "y": y},
            "targets": targets(panel)}
    if panel["kind"] == "stat":
        steps = [{"color": "green", "value": None}]
        if panel["red_above"] is not None:
            steps.append({"color": "red", "value": panel["red_above"]})
        defaults = {"unit": panel["unit"], "noValue": "0", "thresholds": {"mode": "absolute", "steps": steps}}
        made["options"] = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    else:
        stacking = {"mode": "normal" if panel["stacked"] else "none", "group": "A"}
        defaults = {"unit": panel["unit"], "min": 0, "custom": {
            "drawStyle": "line", "fillOpacity": 20 if panel["stacked"] else 5, "showPoints": "never", "stacking": stacking}}
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                           "tooltip": {"mode": "multi", "sort": "desc"}}
    made["fieldConfig"] = {"defaults": defaults, "overrides": []}
    return made


def panels():
    made, y = [], 0
    for title, row in ROWS:
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}})
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel["width"] > WIDTH:
                x, y = 0, y + height
            made.append(drawn(panel, len(made) + 1, x, y))
            x, height = x + panel["width"], made[-1]["gridPos"]["h"]
        y += height
    return made


def dashboard():
    changes = f"changes(callgate_config_generation{{{ALL}}}[$__interval]) > 0"
    return {
        "uid": "callgate", "title": "Callgate", "tags": ["callgate"], "schemaVersion": 39, "version": 1, "editable": True,
        "description": "Made by scripts/dashboard.py; change that, not this.",
        "graphTooltip": 1, "refresh": "30s", "timezone": "", "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": [{"name": "Reloads", "datasource": SOURCE, "enable": True, "iconColor": "blue", "expr": changes,
                                  "titleFormat": "{{instance}} took another configuration"}]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
             "multi": False, "includeAll": False, "current": {}, "options": []},
            variable("job", "Job", "label_values(callgate_build_info, job)"),
            variable("instance", "Instance", 'label_values(callgate_build_info{job=~"$job"}, instance)'),
            variable("route", "Route", f"label_values({REQUESTS}{{{ALL}}}, route)"),
        ]},
        "links": [], "panels": panels(),
    }


def queries():
    return [{"panel": f"{title}: {panel['title']}", "expr": expr}
            for title, row in ROWS for panel in row for expr, _ in panel["queries"]]


def main():
    if "--queries" in sys.argv:
        print(json.dumps(queries(), indent=1))
        return 0
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv:
        same = FILE.exists() and FILE.read_text() == text
        if not same:
            print(f"{FILE} is out of date: run scripts/dashboard.py", file=sys.stderr)
        return 0 if same else 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
