"""Draws bar charts as SVG, with the standard library only."""

from html import escape

COLOURS = {"Callgate": "#0b7a75", "bare pingora": "#7a8594", "HAProxy": "#5d7fb5", "nginx + Lua": "#b08b4f", "Envoy": "#8f6aa8"}
OTHER = "#5fb3ae"
WIDTH, LEFT, ROW, BAR = 760, 190, 26, 16


def bars(title, unit, groups, mark=None):
    """Returns a chart with one group of bars per label. `groups` is {label: {name: value}}; `mark` draws a line at a value."""
    most = max(value for group in groups.values() for value in group.values()) or 1
    y, body = 54, []
    for label, group in groups.items():
        body.append(f'<text x="12" y="{y + 4}" font-weight="600">{escape(label)}</text>')
        y += 14
        for name, value in group.items():
            # A peer with its access log has the same colour as the peer without it.
            colour = COLOURS.get(name.removesuffix(", log"), OTHER)
            length = (WIDTH - LEFT - 90) * value / most
            body.append(f'<text x="{LEFT - 8}" y="{y + BAR - 4}" text-anchor="end">{escape(name)}</text>'
                        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
                        f'<text x="{LEFT + length + 6:.1f}" y="{y + BAR - 4}">{value:.3g}</text>')
            y += ROW - 6
        y += 14
    if mark is not None:
        x = LEFT + (WIDTH - LEFT - 90) * mark / most
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="44" y2="{y - 8}" stroke="#888" stroke-dasharray="3 3"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" font-family="system-ui, sans-serif" font-size="12">'
            f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{y}" fill="#fff"/>'
            f'<text x="12" y="24" font-size="15" font-weight="700">{escape(title)}</text>'
            f'<text x="12" y="40" fill="#555">{escape(unit)}</text>{"".join(body)}</svg>\n')


def draw(data):
    """Returns the charts of the available results, by name."""
    pictures = {}
    titles = {"checks": "Address, token, signature, rewrite", "full": "With access log, metrics, ledger, duplicates",
              "tls": "Over TLS 1.3", "h2": "Over HTTP/2"}
    for key, title in titles.items():
        if f"{key}_ratio" in data:
            pictures[key] = bars(title, "CPU per request, bare pingora = 1; less is better", data[f"{key}_ratio"], mark=1)
    if "refusals" in data:
        pictures["refusals"] = bars("What a refusal costs", "CPU per request, microseconds; less is better", data["refusals"])
    if "latency" in data:
        pictures["latency"] = bars("Latency at a fixed rate, open loop", "microseconds; less is better", data["latency"])
    growing = {key: data[key] for key in ("routes", "networks", "interactions") if key in data}
    if growing:
        pictures["growth"] = bars("What more of something costs", "CPU per request, the first of each group = 1", growing, mark=1)
    return pictures
