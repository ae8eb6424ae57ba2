"use strict";
// The script of the admin page. Data from the API comes from callers, so it is inserted as text, never as markup.
(() => {
  const ROW = 30, SPARE = 8, PATH = 56, TALLY = 8, HEALTH_MS = 300000, EVERY_MS = 2000, STATE_EVERY = 3, SOON_DAYS = 7, ALOUD_MS = 10000;
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name in node) node[name] = value; else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  };
  const cell = (text, className) => make("td", { className: className || "" }, text === null || text === undefined ? "" : String(text));
  const badge = (word, className) => make("span", { className: "badge " + className }, word);
  /** Shortens a long text in the middle, where paths and URLs differ least. */
  function middle(text, most) {
    if (!text || text.length <= most) return text || "";
    const tail = Math.ceil((most - 1) * 0.6);
    return text.slice(0, most - 1 - tail) + "…" + text.slice(text.length - tail);
  }
  const many = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  let said = "";
  const say = (text) => { said = said === text ? text + "\u00a0" : text; $("say").textContent = said; };

  // === The API ===

  let view = "requests", token = null, paused = false, offset = 0;
  class Refused extends Error {}

  async function api(path, more, kind) {
    const headers = Object.assign({}, more && more.headers);
    if (token !== null) headers.authorization = "Bearer " + token;
    const options = Object.assign({ cache: "no-store", credentials: "omit", redirect: "error" }, more, { headers });
    const response = await fetch("/ui/api/" + path, options);
    if (response.status === 204) return null;
    const answer = response.ok && kind === "text" ? await response.text() : await response.json();
    if (response.ok) return answer;
    if (response.status === 401) askForToken();
    throw new Refused(answer.detail || answer.title || String(response.status));
  }

  function askForToken() {
    if ($("token-form").hidden) {
      if (token !== null) $("token-why").textContent = "This token is wrong.";
      token = null;
      $("token-form").hidden = false;
      $("token").focus();
    }
    show();
  }

  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value;
    $("token").value = "";
    $("token-form").hidden = true;
    show();
    turn();
  });

  // === Formats ===

  const clock = (time) => time.slice(11).replace("Z", "");
  function took(us) {
    if (us < 1000) return us + " µs";
    if (us < 1e6) return (us / 1000).toFixed(us < 1e4 ? 2 : 1) + " ms";
    return (us / 1e6).toFixed(2) + " s";
  }
  function span(seconds) {
    const s = Math.round(Math.abs(seconds));
    if (s < 90) return s + " s";
    if (s < 5400) return Math.round(s / 60) + " min";
    if (s < 129600) return Math.round(s / 3600) + " h";
    return Math.round(s / 86400) + " days";
  }
  const until = (time) => (Date.parse(time) - Date.now() - offset) / 1000;
  function when(time) {
    if (!time) return "never";
    const seconds = until(time);
    return seconds < 0 ? span(seconds) + " ago" : "in " + span(seconds);
  }

  // === Requests ===

  let began = null, last = 0, max = 0, rows = [], shown = [];
  let current = null, opened = null, reasons = {}, state = null;
  const drawn = new Map(), scroller = $("scroller"), body = $("rows");
  const filter = { words: [], route: "", verdict: "", reason: "" };
  const known = { route: new Set(), reason: new Set() };

  function hay(row) {
    return [row.time, row.route, row.provider, row.verdict, row.reason, row.status, row.method, row.path, row.client || "",
      row.peer, row.interaction, row.request_id, row.detail, row.observed.join(" ")].join(" ").toLowerCase();
  }
  const fits = (row) =>
    (!filter.route || row.route === filter.route) && (!filter.verdict || row.verdict === filter.verdict) &&
    (!filter.reason || row.reason === filter.reason || row.observed.includes(filter.reason)) &&
    filter.words.every((word) => row.hay.includes(word));

  /** Returns the index of a request in the list shown, newest first, or -1 if it is not in the list. */
  function place(n) {
    let low = 0, high = shown.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (shown[middle].n === n) return shown.length - 1 - middle;
      if (shown[middle].n < n) low = middle + 1; else high = middle - 1;
    }
    return -1;
  }
  const at = (index) => shown[shown.length - 1 - index];

  function draw(row) {
    const button = make("button", { type: "button", tabIndex: -1 }, clock(row.time));
    button.setAttribute("aria-label", `${clock(row.time)}, details`);
    const node = make("tr", { className: opened === row.n ? "chosen" : "" }, make("td", { title: row.time }, button),
      make("td", {}, badge(row.verdict, row.verdict)), cell(row.reason), cell(row.status || "gone"), cell(row.method),
      cell(row.route), cell(row.provider), cell(middle(row.path, PATH)), cell(row.client || row.peer), cell(took(row.duration_us), "num"));
    node.children[2].title = row.reason;
    node.children[7].title = row.path;
    node.dataset.n = row.n;
    return node;
  }

  /** Adds table rows for the visible part of the list and removes all others. Rows that stay visible are reused. */
  function paint() {
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
    const end = Math.min(shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + SPARE);
    const start = Math.min(first, Math.max(0, end - 1));
    const wanted = [];
    for (let i = start; i < end; i++) wanted.push(at(i));
    const keep = new Set(wanted.map((row) => row.n));
    for (const [n, node] of drawn) {
      if (!keep.has(n)) {
        if (node.contains(document.activeElement)) scroller.focus({ preventScroll: true });
        node.remove();
        drawn.delete(n);
      }
    }
    $("before").firstChild.style.height = start * ROW + "px";
    $("behind").firstChild.style.height = Math.max(0, shown.length - end) * ROW + "px";
    const reachable = keep.has(current) ? current : wanted.length ? wanted[Math.min(wanted.length - 1, Math.ceil(scroller.scrollTop / ROW) - start)].n : null;
    let next = $("before").nextSibling;
    wanted.forEach((row, i) => {
      let node = drawn.get(row.n);
      if (!node) drawn.set(row.n, node = draw(row));
      if (node === next) next = next.nextSibling; else body.insertBefore(node, next);
      node.setAttribute("aria-rowindex", start + i + 2);
      node.firstChild.firstChild.tabIndex = row.n === reachable ? 0 : -1;
    });
    $("requests").setAttribute("aria-rowcount", shown.length + 1);
    setText($("count"), shown.length === rows.length ? many(rows.length, "request") : `${shown.length.toLocaleString("en")} of ${many(rows.length, "request")}`);
    $("empty").hidden = shown.length > 0;
    setText($("empty-text"), rows.length ? "No request matches the filter." : max === 0 && began ? "Requests are not kept: listen.admin.recent is 0." : "No requests so far.");
    suggest("empty-try", !rows.length && max > 0 && state && state.routes.length ? tryRoute() : "");
    tally();
  }

  /** Shows a command to try in an empty list. */
  function suggest(id, text, lead) {
    const place = $(id);
    place.hidden = !text;
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    place.replaceChildren(...(text ? [make("p", {}, lead || "Try this command:"), make("pre", { tabIndex: 0 }, text)] : []));
  }

  /** Returns a command that sends a request without a token. Callgate denies it, and it appears in the list. */
  function tryRoute() {
    const route = state.routes[0], path = route.path.replace(/\{\*?[^}]*\}/g, "test");
    return `curl -i -X ${route.methods[0] || "POST"} ${quoted(state.public_url.replace(/\/$/, "") + path)}`;
  }

  let tallied = "";
  /** Shows the number of kept requests per reason. A click on a reason selects it. */
  function tally() {
    const counts = new Map();
    for (const row of rows) counts.set(row.reason, (counts.get(row.reason) || 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)), most = sorted.slice(0, TALLY);
    const text = JSON.stringify([most, sorted.length, filter.reason]);
    if (text === tallied) return;
    tallied = text;
    const focused = document.activeElement.dataset ? document.activeElement.dataset.reason : undefined;
    const rest = sorted.slice(TALLY).reduce((sum, [, count]) => sum + count, 0);
    $("tally").replaceChildren(...most.map(([reason, count]) => {
      const button = make("button", { type: "button" }, `${reason} `, make("b", {}, count.toLocaleString("en")));
      button.dataset.reason = reason;
      button.setAttribute("aria-pressed", String(filter.reason === reason));
      return button;
    }), rest ? `and ${rest.toLocaleString("en")} for ${many(sorted.length - TALLY, "other reason")}` : "");
    if (focused !== undefined) for (const button of $("tally").querySelectorAll("button")) if (button.dataset.reason === focused) button.focus();
  }
  $("tally").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    $("reason").value = filter.reason === button.dataset.reason ? "" : button.dataset.reason;
    applyAloud();
  });

  function apply() {
    filter.words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    filter.route = $("route").value;
    filter.verdict = $("verdict").value;
    filter.reason = $("reason").value;
    shown = rows.filter(fits);
    scroller.scrollTop = 0;
    paint();
  }
  let telling = 0;
  function applyAloud() {
    apply();
    clearTimeout(telling);
    telling = setTimeout(() => say(many(shown.length, "request") + " shown"), 600);
  }
  for (const id of ["text", "route", "verdict", "reason"]) $(id).addEventListener("input", applyAloud);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(applyAloud));

  function offer(id, names) {
    const select = $(id), chosen = select.value;
    const wanted = ["", ...[...names].sort()];
    if (wanted.length === select.options.length && wanted.every((name, i) => select.options[i].value === name)) return;
    select.replaceChildren(...wanted.map((name) => make("option", { value: name }, name || "all")));
    select.value = wanted.includes(chosen) ? chosen : "";
  }

  // Counts new requests for a screen reader, which announces them at most once in ALOUD_MS.
  let unsaid = { all: 0, refused: 0, since: 0 };

  /** Adds new requests. If the user has scrolled to older requests, they stay at the same position on the screen. */
  function take(news) {
    for (const row of news) {
      row.hay = hay(row);
      known.route.add(row.route);
      known.reason.add(row.reason);
      row.observed.forEach((reason) => known.reason.add(reason));
    }
    rows = rows.concat(news);
    if (rows.length > max) rows = rows.slice(rows.length - max);
    const fresh = news.filter(fits).length;
    const holds = scroller.scrollTop > 0 || body.contains(document.activeElement);
    shown = rows.filter(fits);
    offer("route", known.route);
    offer("reason", known.reason);
    paint();
    if (holds && fresh) {
      scroller.scrollTop += fresh * ROW;
      paint();
    }
    unsaid.all += news.length;
    unsaid.refused += news.filter((row) => row.verdict === "deny" || row.verdict === "fail").length;
    if (unsaid.all && Date.now() - unsaid.since > ALOUD_MS) {
      say(`${many(unsaid.all, "new request")}, ${unsaid.refused} denied or failed`);
      unsaid = { all: 0, refused: 0, since: Date.now() };
    }
  }

  async function pull() {
    let news = [], more = true;
    while (more) {
      const answer = await api(`recent?after=${last}`);
      if (began !== answer.began) {
        const again = began !== null;
        began = answer.began;
        if (again) { last = 0; rows = []; shown = []; news = []; close(false); continue; }
      }
      max = answer.max;
      more = answer.more;
      last = answer.rows.length ? answer.rows[answer.rows.length - 1].n : last;
      news = news.concat(answer.rows);
    }
    if (news.length || !rows.length || rows.length > max) take(news);
  }

  let framed = false;
  scroller.addEventListener("scroll", () => {
    if (framed) return;
    framed = true;
    requestAnimationFrame(() => { framed = false; paint(); });
  });
  addEventListener("resize", paint);

  function go(index) {
    if (!shown.length) return;
    const to = Math.max(0, Math.min(shown.length - 1, index));
    current = at(to).n;
    const head = scroller.querySelector("thead").offsetHeight;
    const top = to * ROW, room = scroller.clientHeight - head - ROW;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top > scroller.scrollTop + room) scroller.scrollTop = top - room;
    paint();
    drawn.get(current).firstChild.firstChild.focus({ preventScroll: true });
  }
  scroller.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const inRow = body.contains(document.activeElement);
    const from = inRow ? place(Number(document.activeElement.closest("tr").dataset.n)) : -1;
    const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 2);
    const to = { ArrowDown: from + 1, ArrowUp: from - 1, PageDown: from + page, PageUp: from - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(inRow ? to : event.key === "End" ? to : Math.ceil(scroller.scrollTop / ROW));
  });
  body.addEventListener("click", (event) => {
    const node = event.target.closest("tr[data-n]");
    if (node && String(getSelection()) === "") open(Number(node.dataset.n));
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    const field = { requests: "text", interactions: "interaction-text", inbox: "inbox-text" }[view];
    if (event.key === "/" && !typing && field && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      $(field).focus();
    }
    if (event.key !== "Escape" || typing || $("ask").open) return;
    if (view === "requests" && !$("details").hidden) close(true);
    if (view === "interactions" && !$("interaction-details").hidden) closeInteraction();
    if (view === "inbox" && !$("message-details").hidden) closeMessage();
  });

  // === The details of one request ===

  function facts(pairs) {
    return make("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
      .flatMap(([name, value]) => [make("dt", {}, name), make("dd", { className: "mono" }, String(value))]));
  }

  const quoted = (text) => /^[A-Za-z0-9._:\/@-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";

  /** Returns shell commands that repeat the decision. Of the caller's data they contain only addresses, so that they are
   *  safe to paste into a shell. */
  function command(row, route) {
    const lines = [];
    const signed = route && route.signed && route.provider;
    if (signed) lines.push(`callgate sign -c callgate.yaml --provider ${quoted(route.provider)} --request callback.http --at ${quoted(row.time)} > signed.http`);
    lines.push(`callgate explain -c callgate.yaml --request ${signed ? "signed.http" : "callback.http"} --peer ${quoted(row.peer)} --at ${quoted(row.time)}`);
    return lines.join("\n");
  }

  function skeleton(row, route) {
    let host = "localhost", path = row.path;
    try { host = new URL(state.public_url).host || host; } catch { /* The URL is missing or not valid: keep "localhost". */ }
    if (route && route.parameters.length) path += "?" + encodeURIComponent(route.parameters[0]) + "=TOKEN-LEFT-OUT";
    const lines = [`${row.method === "other" ? "POST" : row.method} ${path} HTTP/1.1`, `Host: ${host}`];
    for (const name of (route ? route.headers : []).slice(0, 1)) {
      lines.push(name === "authorization" ? "Authorization: Bearer TOKEN-LEFT-OUT" : `${name}: TOKEN-LEFT-OUT`);
    }
    if (row.client && row.client !== row.peer && state && state.client_header) {
      const node = row.client.includes(":") ? `"[${row.client}]"` : row.client;
      lines.push(`${state.client_header}: ${state.client_header === "forwarded" ? "for=" + node : row.client}`);
    }
    const bodiless = row.method === "GET" || row.method === "HEAD";
    if (!bodiless) lines.push("Content-Type: application/json");
    return lines.join("\n") + "\n\n" + (bodiless ? "" : "{}\n");
  }

  function copyable(title, text) {
    const pre = make("pre", { tabIndex: 0 }, text), button = make("button", { type: "button" }, "Copy");
    button.setAttribute("aria-label", "Copy: " + title);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        say("Copied: " + title);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(pre);
        say("Selected; copy it with the keyboard");
      }
    });
    return [make("div", { className: "titled" }, make("h4", {}, title), button), pre];
  }

  function trail(row) {
    const steps = row.trail.map(([check, outcome, denial, nanos]) => make("tr", {}, make("td", {}, make("code", {}, check)),
      make("td", { className: outcome === "skip" ? "skip-step" : outcome }, denial ? `${outcome}: ${denial}` : outcome),
      cell(nanos === null ? "in the next" : took(nanos < 1000 ? 0 : Math.round(nanos / 1000)).replace(/^0 µs$/, nanos + " ns"), nanos === null ? "num nowrap faint" : "num nowrap")));
    const head = make("tr", {}, ...["Check", "Outcome", "Time"].map((name, i) => make("th", { scope: "col", className: i === 2 ? "num" : "" }, name)));
    return make("table", {}, make("caption", { className: "unseen" }, "Checks, in the order in which they ran"), make("thead", {}, head), make("tbody", {}, ...steps));
  }

  function open(n) {
    const row = rows.find((candidate) => candidate.n === n);
    if (!row) return;
    current = opened = n;
    for (const [number, node] of drawn) node.classList.toggle("chosen", number === n);
    const route = state && state.routes.find((candidate) => candidate.name === row.route);
    const reason = reasons[row.reason];
    const title = make("h3", { id: "details-title", tabIndex: -1 }, badge(row.verdict, row.verdict), ` ${row.reason}`);
    const shut = make("button", { type: "button", id: "shut" }, "Close");
    shut.addEventListener("click", () => close(true));
    const observed = row.observed.map((code) => make("p", {}, make("code", {}, code), ": ", (reasons[code] || {}).help || ""));
    $("details").replaceChildren(
      make("div", { className: "top" }, title, shut),
      reason ? make("p", { id: "meaning" }, reason.help) : "",
      row.detail ? make("p", { id: "sentence", className: row.verdict === "deny" || row.verdict === "fail" ? "deny" : "" }, row.detail) : "",
      ...(observed.length ? [make("h4", {}, "Delivered because the route is in observe mode. It would have been denied because of"), ...observed] : []),
      make("h4", {}, "Request"),
      facts([["time", row.time], ["request", `${row.method} ${row.path}`], ["status", row.status || "the caller closed the connection"], ["route", row.route],
        ["provider", row.provider], ["client", row.client], ["peer", row.peer !== row.client ? row.peer : ""], ["interaction", row.interaction],
        ["request id", row.request_id], ["body", `${row.body_bytes.toLocaleString("en")} bytes`], ["took", took(row.duration_us)],
        [row.member ? "replica took" : "agent took", row.deliver_us ? took(row.deliver_us) : ""],
        ["handed over to", row.member], ["handed over by", row.from_member]]),
      make("h4", {}, "Checks"), trail(row),
      make("h3", {}, "Ask again"), make("div", { id: "again" }, ...again(row, route)));
    if (captured(row)) askCaptured(row, route);
    $("details").hidden = false;
    $("split").classList.add("open");
    paint();
    $("details").scrollTop = 0;
    title.focus({ preventScroll: true });
  }

  /** Returns what repeats the decision about a request that was not captured. */
  function again(row, route) {
    const refused = row.verdict === "deny" || row.verdict === "fail" || row.observed.length > 0;
    const capture = make("button", { type: "button", id: "capture" }, "Capture the next requests like this one");
    capture.addEventListener("click", () => beginCapture(row));
    return [...copyable("Explain this request: command", command(row, route)),
      ...copyable("Explain this request: callback.http", skeleton(row, route)),
      make("p", { className: "hint" }, "Callgate does not keep the token, the query, the body and the signature. Add the ones that the caller sent."),
      refused && state && state.actions ? make("p", {}, capture) : ""];
  }

  // === Captures ===

  let captures = { active: null, requests: [] };
  const captured = (row) => captures.requests.find((one) => one.id === row.request_id);

  async function pullCaptures() {
    captures = await api("capture");
    const active = captures.active;
    note("capture", "observe", active ? `Capturing ${active.reason || "every rejected request"} on ${active.route === null ? "every route" : active.route === "none" ? "no route" : active.route}: ${active.captured} of ${active.requests}, ends ${when(active.until)}` : "");
    const row = opened === null ? null : rows.find((candidate) => candidate.n === opened);
    if (row && captured(row) && !$("again").dataset.captured) askCaptured(row, state && state.routes.find((candidate) => candidate.name === row.route));
  }

  /** Replaces the skeleton of a request by the captured request. */
  async function askCaptured(row, route) {
    const name = row.request_id + ".http", node = $("again");
    node.dataset.captured = "yes";
    let file;
    try { file = await api("capture/" + encodeURIComponent(name), null, "text"); } catch { node.replaceChildren(...again(row, route)); return; }
    if (opened !== row.n) return;
    node.replaceChildren(...copyable("Explain this request: command", `callgate explain -c callgate.yaml --request ${name}`),
      ...copyable("Explain this request: " + name, file),
      make("p", { className: "hint" }, `Captured without its token, secrets and signature: the verdicts of their checks are in the file, and explain takes them over. Download: GET /capture/${name}`));
  }

  async function beginCapture(row) {
    const reason = row.observed.length ? row.observed[0] : row.reason;
    const options = { method: "POST", headers: { "callgate-action": "capture", "content-type": "application/json" }, body: JSON.stringify({ route: row.route, reason, requests: 5, for: "10m" }) };
    try {
      await api("capture", options);
      say("Capturing");
      note("act", "fail", "");
      await pullCaptures();
    } catch (error) {
      say("Not capturing: " + error.message);
      note("act", "fail", "Not capturing: " + error.message);
    }
  }

  function close(back) {
    const n = opened;
    opened = null;
    $("details").hidden = true;
    $("split").classList.remove("open");
    for (const node of drawn.values()) node.classList.remove("chosen");
    paint();
    if (!back) return;
    const index = n === null ? -1 : place(n);
    if (index >= 0) go(index); else scroller.focus();
  }

  // === Interactions ===

  let after = "", next = null, chosen = null;

  /** Asks whether an action is wanted. The action begins if the answer is yes. */
  let wanted = null;
  function ask(title, about, text, yes, act) {
    setText($("ask-title"), title);
    setText($("ask-id"), about);
    setText($("ask-text"), text);
    setText($("ask-yes"), yes);
    wanted = act;
    $("ask").showModal();
    $("ask-no").focus();
  }

  async function interactions() {
    const sort = $("order").value, query = new URLSearchParams({ state: $("state").value, sort, search: $("interaction-text").value.trim() });
    query.set(sort === "newest" ? "before" : "after", after);
    if ($("interaction-route").value) query.set("route", $("interaction-route").value);
    const answer = await api("interactions?" + query);
    next = answer.next;
    const focused = document.activeElement.dataset ? document.activeElement.dataset.id : undefined;
    const began = document.activeElement.dataset ? document.activeElement.dataset.open : undefined;
    const acts = Boolean(state && state.actions);
    $("act-head").hidden = !acts;
    $("member-head").hidden = !(state && state.member);
    const missing = answer.unreachable || [];
    $("interactions-missing").hidden = !missing.length;
    setText($("interactions-missing"), missing.length ? `Without the interactions of ${missing.join(", ")}, which did not answer` : "");
    $("interactions").replaceChildren(...answer.interactions.map((one) => interaction(one, acts)));
    $("interactions-empty").hidden = answer.interactions.length > 0;
    const none = !answer.interactions.length && state && state.interactions + state.kept === 0;
    setText($("interactions-empty-text"), none ? "No interactions so far." : "No interaction matches the filter.");
    suggest("interactions-try", none ? tryInteraction() : "");
    await interactionDetails();
    $("first").disabled = after === "";
    $("next").disabled = next === null;
    const total = state ? `; ${state.interactions.toLocaleString("en")} ${state.member ? "in the ledger of this replica" : "in total"}` : "";
    setText($("interaction-count"), many(answer.interactions.length, "interaction") + (next ? " of more" : "") + total);
    if (focused || began) for (const button of $("interactions").querySelectorAll("button")) if ((focused && button.dataset.id === focused) || (began && button.dataset.open === began)) button.focus();
  }

  /** Returns a command that begins an interaction. */
  function tryInteraction() {
    const route = state.routes.find((one) => one.token && one.token.startsWith("minted here"));
    if (!route) return "";
    const params = [...route.path.matchAll(/\{\*?([A-Za-z0-9_]+)[^}]*\}/g)].map((match) => match[1]).filter((name) => name !== "callback_token");
    return `callgate mint -c callgate.yaml --route ${quoted(route.name)}${params.map((name) => ` --param ${name}=test`).join("")}`;
  }

  async function openInteraction(id) {
    chosen = id;
    await interactionDetails();
    $("interaction-title").focus({ preventScroll: true });
  }

  function closeInteraction() {
    const id = chosen;
    chosen = null;
    $("interaction-details").hidden = true;
    $("interaction-split").classList.remove("open");
    for (const row of $("interactions").children) row.classList.remove("chosen");
    const button = [...$("interactions").querySelectorAll("button")].find((one) => one.dataset.open === id);
    (button || document.querySelector("#view-interactions .scroller")).focus();
  }

  /** Shows all that is known about the chosen interaction. */
  async function interactionDetails() {
    if (chosen === null) return;
    const id = chosen;
    let one;
    try { one = await api("details/" + encodeURIComponent(id)); } catch { one = null; }
    if (chosen !== id) return;
    const focused = $("interaction-details").contains(document.activeElement) ? document.activeElement.id : "";
    const shut = make("button", { type: "button", id: "interaction-shut" }, "Close");
    shut.addEventListener("click", closeInteraction);
    const title = make("h3", { id: "interaction-title", tabIndex: -1 }, id);
    const top = make("div", { className: "top" }, title, shut);
    $("interaction-details").replaceChildren(top, ...(one ? interactionFacts(one) : [make("p", {}, "The ledger does not contain this interaction any more.")]));
    $("interaction-details").hidden = false;
    $("interaction-split").classList.add("open");
    for (const row of $("interactions").children) row.classList.toggle("chosen", row.dataset.id === id);
    if (focused) ($(focused) || title).focus({ preventScroll: true });
  }

  const INFORMED = { callback: "callback", final_callback: "final callback", expired: "notice: expired", stalled: "notice: stalled", undelivered: "notice: undelivered" };
  function interactionFacts(one) {
    const time = (at) => at ? `${at} (${when(at)})` : "";
    const captures = Object.entries(one.captures).map(([name, value]) => `${name}=${value}`).join("\n");
    const undelivered = one.undelivered ? `${many(one.undelivered.count, "callback")}, the last ${when(one.undelivered.last_at)}` : "none";
    const list = (title, items, none) => [make("h4", {}, title), items.length ? make("ol", {}, ...items.map((item) => make("li", { className: "mono" }, item))) : make("p", { className: "faint" }, none)];
    const questions = one.questions.map((question) => `${question.number}: ${question.answered ? "answered" : "open"}${question.host ? ", " + question.host : ""}`);
    const find = make("button", { type: "button", id: "interaction-requests" }, "Show its requests");
    find.addEventListener("click", () => { $("filters").reset(); $("text").value = one.interaction; location.hash = "#requests"; setTimeout(applyAloud); });
    const kept = make("button", { type: "button", id: "interaction-messages" }, "Show its messages");
    kept.addEventListener("click", () => { $("inbox-state").value = $("inbox-route").value = ""; $("inbox-text").value = one.interaction; messagesAfter = 0; location.hash = "#inbox"; });
    return [
      facts([["state", one.state], ["route", one.route], ["provider", one.provider], ["captures", captures], ["status", one.status], ["progress", one.progress === null ? "" : `${one.progress} %`],
        ["provider's id", one.provider_id], ["owner", one.member ? one.member + (state && one.member === state.member ? " (this one)" : "") : ""]]),
      make("h4", {}, "Times"),
      facts([["began", time(one.created_at)], ["last callback", time(one.last_event_at) || "none"], ["deadline", time(one.deadline_at)], ["ended", time(one.ended_at)], ["agent knows the end", time(one.informed_at) || (one.ended_at ? "not known" : "")], ["token expires", time(one.expires_at)]]),
      make("h4", {}, "Attempts"),
      facts([["delivered", many(one.deliveries, "callback")], ["not accepted", undelivered], ["uses left", one.uses_left === null ? "any number" : String(one.uses_left)],
        ["notice", one.notice ? `${one.notice}, ${many(one.notice_attempts, "failed attempt")}` : "none pending"]]),
      ...list("Accepted by the agent", (one.informed ?? []).map((taken) => `${INFORMED[taken.by] ?? taken.by}, ${time(taken.at)}`), "nothing"),
      ...list("Last events", one.event_ids, "no event with an id"),
      ...list("Questions", questions, "none"),
      make("p", {}, find, " ", state && state.inbox.routes.length ? kept : "")];
  }

  function interaction(one, acts) {
    const id = one.interaction;
    const captures = Object.entries(one.captures).map(([name, value]) => `${name}=${value}`).join(", ");
    const progress = make("td", { className: "nowrap" });
    if (one.progress !== null) {
      const bar = make("progress", { max: 100, value: Math.max(0, Math.min(100, one.progress)) });
      bar.setAttribute("aria-label", "progress");
      progress.append(bar, ` ${one.progress} %`);
    }
    const late = one.open && until(one.deadline_at) < 0;
    const deadline = cell(when(one.deadline_at), (late ? "deny " : "") + "nowrap");
    deadline.title = one.deadline_at;
    const latest = cell(when(one.last_event_at), "nowrap");
    latest.title = one.last_event_at || "";
    const begun = cell(when(one.created_at), "nowrap"), opener = make("button", { type: "button", className: "plain" }, make("code", {}, id));
    begun.title = one.created_at;
    opener.dataset.open = id;
    opener.addEventListener("click", () => openInteraction(id));
    const node = make("tr", { className: chosen === id ? "chosen" : "" }, make("td", { className: "nowrap" }, opener), cell(one.route, "nowrap"), cell(captures, "free"), make("td", { className: one.state + " nowrap" }, one.state),
      cell(one.status, "free"), progress, cell(one.deliveries, "num"), begun, latest, deadline);
    node.dataset.id = id;
    if (state && state.member) node.append(cell(one.member === state.member ? `${one.member} (this one)` : one.member));
    if (acts) {
      const button = make("button", { type: "button", className: "danger", disabled: !one.open }, "Revoke");
      button.dataset.id = id;
      button.setAttribute("aria-label", "Revoke " + id);
      button.addEventListener("click", () => ask("Revoke this interaction?", id, "Its token becomes invalid at once. You cannot undo this.", "Revoke", () => revoke(id)));
      node.append(make("td", {}, button));
    }
    return node;
  }

  $("ask-no").addEventListener("click", () => $("ask").close());
  $("ask-yes").addEventListener("click", () => { $("ask").close(); wanted(); });
  async function revoke(asked) {
    try {
      const answer = await api("interactions/" + encodeURIComponent(asked), { method: "DELETE", headers: { "callgate-action": "revoke" } });
      const missed = answer && answer.unreachable ? answer.unreachable.join(", ") : "";
      say("Revoked: " + asked);
      note("act", "fail", missed ? `Revoked: ${asked}. These replicas do not know of it yet: ${missed}. Send DELETE /callbacks/${asked} again when they answer.` : "");
    } catch (error) {
      say("Not revoked: " + error.message);
      note("act", "fail", "Not revoked: " + error.message);
    }
    await turn();
    document.querySelector("#view-interactions .scroller").focus();
  }
  let searching = 0;
  for (const id of ["state", "interaction-route", "order"]) $(id).addEventListener("input", () => { after = ""; turn(); });
  $("interaction-text").addEventListener("input", () => {
    clearTimeout(searching);
    searching = setTimeout(() => { after = ""; turn(); }, 250);
  });
  $("interaction-filters").addEventListener("submit", (event) => event.preventDefault());
  $("first").addEventListener("click", () => { after = ""; turn(); });
  $("next").addEventListener("click", () => { if (next) { after = next; turn(); } });

  // === Inbox ===

  const CAUSES = { given_up: "The agent did not accept it in time.", gone: "The agent answered 410.", rejected: "The agent answered another 4xx three times.",
    revoked: "The interaction was revoked.", route_removed: "A reload removed its route." };
  let messagesAfter = 0, messagesNext = null, message = null;

  function size(bytes) {
    if (bytes < 1024) return bytes + " B";
    return bytes < 1 << 20 ? (bytes / 1024).toFixed(1) + " KiB" : (bytes / (1 << 20)).toFixed(1) + " MiB";
  }

  /** Shows how many messages each route has, and which agents do not respond. */
  function inboxRoutes() {
    const { routes, paused } = state.inbox;
    $("inbox-routes-card").hidden = !routes.length;
    const focused = document.activeElement.dataset ? document.activeElement.dataset.count : undefined;
    const count = (route, name, className) => {
      const number = route[name];
      if (!number) return cell("0", "num faint");
      const button = make("button", { type: "button", className: "plain " + className }, number.toLocaleString("en"));
      button.dataset.count = route.name + " " + name;
      button.setAttribute("aria-label", `${number} ${name}, show them`);
      button.addEventListener("click", () => { $("inbox-state").value = name; $("inbox-route").value = route.name; $("inbox-text").value = ""; messagesAfter = 0; turn(); });
      return make("td", { className: "num" }, button);
    };
    fill("inbox-routes", routes.map((route) => {
      const waits = route.due + route.leased > 0, away = paused.includes(route.agent) && route.deliver === "inbox";
      const oldest = cell(waits && route.oldest ? span(until(route.oldest)) : "-", "nowrap");
      oldest.title = waits && route.oldest ? route.oldest : "";
      const circuit = route.deliver === "inbox" ? badge(away ? "circuit open" : "circuit closed", away ? "fail" : "allow") : route.deliver === "pull" ? "asks for them" : "";
      return make("tr", {}, cell(route.name, "nowrap"), cell(route.deliver === null ? "removed route" : route.deliver, "nowrap"), count(route, "due", ""), count(route, "leased", ""),
        count(route, "dead", "dead"), count(route, "delivered", ""), oldest, make("td", { className: "nowrap" }, route.agent && route.agent !== "agent" ? route.agent + " " : "", circuit));
    }), 8, "none");
    if (focused) for (const button of $("inbox-routes").querySelectorAll("button")) if (button.dataset.count === focused) button.focus();
    const sum = (name) => routes.reduce((total, route) => total + route[name], 0), dead = sum("dead");
    $("inbox-dead").hidden = !dead;
    setText($("inbox-dead"), dead ? dead.toLocaleString("en") + " dead" : "");
    offer("inbox-route", routes.map((route) => route.name));
    note("paused", "fail", paused.length ? `Deliveries of the inbox pause, because ${paused.length === 1 ? "the agent does" : "these agents do"} not respond${paused.join() === "agent" ? "" : ": " + paused.join(", ")}. ${many(sum("due"), "message")} due.` : "");
    return { all: sum("due") + sum("leased") + dead + sum("delivered"), dead };
  }

  async function messages() {
    const total = inboxRoutes(), acts = Boolean(state.actions), text = $("inbox-text").value.trim();
    const query = new URLSearchParams({ state: $("inbox-state").value, route: $("inbox-route").value, after: messagesAfter, limit: 100 });
    let answer = { messages: [], next: null };
    if (text.startsWith("msg_")) {
      try { answer.messages = [await api("inbox/" + encodeURIComponent(text))]; } catch (error) { if (!(error instanceof Refused)) throw error; }
    } else {
      query.set("interaction", text);
      answer = await api("inbox?" + query);
    }
    messagesNext = answer.next;
    const focused = document.activeElement.dataset ? document.activeElement.dataset.key : undefined;
    $("inbox-act-head").hidden = !acts;
    $("messages").replaceChildren(...answer.messages.map((one) => messageRow(one, acts)));
    $("inbox-empty").hidden = answer.messages.length > 0;
    const keeps = state.inbox.routes.length > 0;
    setText($("inbox-empty-text"), !keeps ? "No route keeps its callbacks. With “deliver: inbox” or “deliver: pull”, a route keeps them until the agent has received them."
      : total.all === 0 ? "No messages. Every kept callback was delivered." : "No message matches the filter.");
    suggest("inbox-try", keeps ? "" : "store: { kind: file, path: /var/lib/callgate/ledger }\nroutes:\n  - deliver: inbox", "Write into the configuration:");
    const route = state.inbox.routes.filter((one) => !$("inbox-route").value || one.name === $("inbox-route").value);
    const dead = route.reduce((sum, one) => sum + one.dead, 0);
    $("inbox-replay").hidden = !acts || !dead;
    setText($("inbox-replay"), `Replay ${many(dead, "dead message")}`);
    $("inbox-first").disabled = messagesAfter === 0;
    $("inbox-next").disabled = messagesNext === null;
    setText($("inbox-count"), many(answer.messages.length, "message") + (messagesNext === null ? "" : " of more") + `; ${total.all.toLocaleString("en")} in total, ${size(state.inbox.bytes)}`);
    await messageDetails();
    if (focused) for (const button of $("messages").querySelectorAll("button")) if (button.dataset.key === focused) button.focus();
  }

  /** Returns the buttons that replay and drop a message. */
  function messageButtons(one, place) {
    const settled = one.state === "dead" || one.state === "delivered", node = make("span", { className: "nowrap" });
    const add = (word, className, disabled, act) => {
      const button = make("button", { type: "button", className, disabled }, word);
      if (place) button.id = place + word; else button.dataset.key = word + one.id;
      button.setAttribute("aria-label", `${word} ${one.id}`);
      button.addEventListener("click", act);
      node.append(button, " ");
    };
    add("Replay", "", !settled, () => change("POST", one.id + "/replay", "replay", "Due again: " + one.id));
    add("Drop", "danger", one.state === "leased", () => ask("Drop this message?", one.id, one.state === "delivered" ? "It is removed for good." : "The agent will not receive it. You cannot undo this.", "Drop", () => change("DELETE", one.id, "drop", "Dropped: " + one.id)));
    return node;
  }

  async function change(method, path, action, done, body) {
    const options = { method, headers: { "callgate-action": action, "content-type": "application/json" }, body: body ? JSON.stringify(body) : undefined };
    try {
      await api("inbox/" + path, options);
      say(done);
      note("act", "fail", "");
    } catch (error) {
      say("Not done: " + error.message);
      note("act", "fail", `Not done (${action}): ${error.message}`);
    }
    await turn();
    if (document.activeElement === document.body) document.querySelector("#view-inbox .scroller").focus();
  }

  function messageRow(one, acts) {
    const opener = make("button", { type: "button", className: "plain" }, make("code", {}, one.id));
    opener.dataset.key = "open" + one.id;
    opener.addEventListener("click", () => openMessage(one.id));
    const received = cell(one.received_at ? when(one.received_at) : "-", "nowrap"), at = one.due_at || one.settled_at;
    received.title = one.received_at || "";
    const next = cell(one.state === "leased" ? "in progress" : at ? when(at) : "-", "nowrap");
    next.title = at || "";
    const node = make("tr", { className: message === one.id ? "chosen" : "" }, make("td", { className: "nowrap" }, opener), cell(one.route, "nowrap"), make("td", { className: one.state + " nowrap" }, one.state + (one.cause ? ": " + one.cause : "")),
      cell(one.attempts, "num"), cell(one.error || one.last_result || "-", "free"), received, next, cell(size(one.bytes), "num nowrap"));
    node.dataset.id = one.id;
    if (acts) node.append(make("td", {}, messageButtons(one)));
    return node;
  }

  async function openMessage(id) {
    message = id;
    await messageDetails();
    $("message-title").focus({ preventScroll: true });
  }

  function closeMessage() {
    const id = message;
    message = null;
    $("message-details").hidden = true;
    $("inbox-split").classList.remove("open");
    for (const row of $("messages").children) row.classList.remove("chosen");
    const button = [...$("messages").querySelectorAll("button")].find((one) => one.dataset.key === "open" + id);
    (button || document.querySelector("#view-inbox .scroller")).focus();
  }

  /** Shows all that is known about the chosen message. */
  async function messageDetails() {
    if (message === null) return;
    const id = message;
    let one;
    try { one = await api("inbox/" + encodeURIComponent(id)); } catch (error) { if (!(error instanceof Refused)) throw error; one = null; }
    if (message !== id) return;
    const focused = $("message-details").contains(document.activeElement) ? document.activeElement.id : "";
    const shut = make("button", { type: "button", id: "message-shut" }, "Close");
    shut.addEventListener("click", closeMessage);
    const title = make("h3", { id: "message-title", tabIndex: -1 }, id);
    $("message-details").replaceChildren(make("div", { className: "top" }, title, shut), ...(one ? messageFacts(one) : [make("p", {}, "The message is not kept any more: it was delivered or dropped.")]));
    $("message-details").hidden = false;
    $("inbox-split").classList.add("open");
    for (const row of $("messages").children) row.classList.toggle("chosen", row.dataset.id === id);
    if (focused) ($(focused) || title).focus({ preventScroll: true });
  }

  function messageFacts(one) {
    const time = (at) => at ? `${at} (${when(at)})` : "";
    const head = [`${one.method} ${one.target}`, ...(one.headers || []).map(([name, value]) => `${name}: ${value}`)].join("\n");
    const body = one.body !== undefined ? one.body : one.body_base64;
    const find = make("button", { type: "button", id: "message-interaction" }, "Show its interaction");
    find.addEventListener("click", () => { $("state").value = "all"; $("interaction-text").value = one.interaction; after = ""; location.hash = "#interactions"; });
    return [
      facts([["state", one.state], ["why", one.cause ? `${one.cause}: ${CAUSES[one.cause] || ""}` : ""], ["route", one.route], ["interaction", one.interaction], ["event", one.event_id]]),
      make("h4", {}, "Attempts"),
      facts([["attempts", String(one.attempts)], ["last result", one.last_result || "none"], ["received", time(one.received_at)], ["next attempt", time(one.due_at)], [one.state === "dead" ? "given up" : "delivered", time(one.settled_at)]]),
      one.error ? make("p", { className: "deny" }, one.error) : "",
      ...(one.method ? copyable("Head", head) : []),
      ...(body !== undefined && body !== null ? copyable(one.body === undefined ? "Body in base64" : "Body", body || "(empty)")
        : one.error ? [] : [make("h4", {}, "Body"), make("p", { className: "faint" }, `${(one.body_bytes || 0).toLocaleString("en")} bytes. Bodies are shown only with “listen.admin.bodies: true”.`)]),
      one.interaction ? make("p", {}, find) : "",
      state.actions ? make("p", {}, messageButtons(one, "message-")) : ""];
  }

  for (const id of ["inbox-state", "inbox-route"]) $(id).addEventListener("input", () => { messagesAfter = 0; turn(); });
  $("inbox-text").addEventListener("input", () => {
    clearTimeout(searching);
    searching = setTimeout(() => { messagesAfter = 0; turn(); }, 250);
  });
  $("inbox-filters").addEventListener("submit", (event) => event.preventDefault());
  $("inbox-first").addEventListener("click", () => { messagesAfter = 0; turn(); });
  $("inbox-next").addEventListener("click", () => { if (messagesNext !== null) { messagesAfter = messagesNext; turn(); } });
  $("inbox-replay").addEventListener("click", () => {
    const route = $("inbox-route").value;
    ask("Replay all dead messages?", route || "all routes", "The agent receives them again, under the same ids.", "Replay", () => change("POST", "replay", "replay", "Due again", Object.assign({ state: "dead" }, route ? { route } : {})));
  });

  // === Setup and warnings ===

  const notes = new Map();
  function note(key, className, text) {
    const old = notes.get(key);
    if (!text) {
      if (old) { old.remove(); notes.delete(key); }
      return;
    }
    const node = old || make("p", {});
    node.className = className;
    setText(node, text);
    if (!old) { notes.set(key, node); $("notes").append(node); }
  }

  function fill(id, made, columns, none) {
    $(id).replaceChildren(...(made.length ? made : [make("tr", {}, make("td", { colSpan: columns, className: "skip-step" }, none))]));
  }

  async function pullState() {
    state = await api("state");
    offset = Date.parse(state.now) - Date.now();
    setText($("version"), state.version);
    offer("interaction-route", state.routes.map((route) => route.name));
    state.routes.forEach((route) => known.route.add(route.name));
    offer("route", known.route);
    const observing = state.routes.filter((route) => route.observes).map((route) => route.name);
    note("observing", "observe", observing.length ? `${many(observing.length, "route")} in observe mode, where nothing is denied: ${observing.join(", ")}` : "");
    note("dev", "fail", state.config.dev ? "Development mode: callers learn why a request was denied. Do not use --dev in production." : "");
    note("ready", "deny", state.ready ? "" : `Not ready: ${state.why_not}`);
    const refused = state.config.refused;
    note("config", "deny", refused ? `The last reload failed, and Callgate keeps the previous configuration (${refused.at}):\n${refused.errors.join("\n")}` : "");
    const ending = state.certificates.filter((one) => until(one.ends) < SOON_DAYS * 86400);
    note("certificates", "fail", ending.map((one) => `${one.file} ${until(one.ends) < 0 ? "expired" : "expires"} ${when(one.ends)}`).join("\n"));
    const missing = state.feeds.filter((feed) => feed.count === null && feed.kind !== "secret");
    note("feeds", "fail", missing.length ? `Not fetched yet: ${missing.map((feed) => feed.label).join(", ")}` : "");
    setup(refused);
    egress();
    inboxRoutes();
    await pullMembers();
    await pullCaptures();
  }

  /** Shows the replicas of this installation. Without the section `replicas`, there are none. */
  async function pullMembers() {
    const { own, members } = state.member ? await api("members") : { own: null, members: [] };
    $("members-card").hidden = !own;
    const all = own ? [own, ...members] : [];
    const name = (incarnation) => (all.find((one) => one.incarnation === incarnation && one.address) || {}).address || incarnation;
    fill("members", all.map((one) => {
      const presence = one === own ? "this one" : one.stopping && one.presence === "present" ? "stopping" : one.presence;
      const since = cell(one.started_at ? `${one.started_at} (${when(one.started_at)})` : "-", "nowrap");
      return make("tr", {}, make("td", { className: "nowrap" }, make("code", {}, one.address)), cell(presence, { unreachable: "fail", gone: "faint", present: "allow" }[presence] || ""),
        since, cell(one.group || "-", "nowrap"), make("td", {}, make("code", {}, one.incarnation)), cell((one.inherits || []).map(name).join(", ") || "-"));
    }), 6, "none");
    const silent = members.filter((one) => one.presence === "unreachable");
    note("members", "fail", silent.length ? `${many(silent.length, "replica")} that did not answer: ${silent.map((one) => one.address).join(", ")}` : "");
  }

  // === Egress ===

  // The counters at earlier times, to tell what happened in the last minutes.
  const earlier = [];

  /** Returns what has happened since the earliest remembered time. */
  function since(kind, key) {
    const sums = (counts) => counts.filter((one) => one[key.by] === key.name).reduce((sum, one) => {
      sum[one.verdict === "fail" ? "fail" : one.verdict === "deny" ? "deny" : "allow"] += one.requests;
      return sum;
    }, { allow: 0, deny: 0, fail: 0 });
    const now = sums(state.counts[kind]), then = earlier.length ? sums(earlier[0].counts[kind]) : { allow: 0, deny: 0, fail: 0 };
    return { all: now, fresh: Object.fromEntries(Object.keys(now).map((verdict) => [verdict, Math.max(0, now[verdict] - then[verdict])])) };
  }

  function health({ all, fresh }) {
    const bad = fresh.fail + fresh.deny, good = fresh.allow;
    if (all.allow + all.deny + all.fail === 0) return badge("no requests", "faint");
    if (bad + good === 0) return badge("quiet", "faint");
    if (!bad) return badge("ok", "allow");
    const word = fresh.fail ? "failing" : "denied";
    return good ? badge(`${Math.round(100 * bad / (bad + good))} % ${word}`, "fail") : badge(fresh.fail ? word : "all denied", "deny");
  }

  function why(counts) {
    const refused = counts.filter((one) => one.verdict === "deny" || one.verdict === "fail" || one.verdict === "observe");
    const sums = new Map();
    for (const one of refused) sums.set(one.reason, (sums.get(one.reason) || 0) + one.requests);
    return [...sums].sort((a, b) => b[1] - a[1]).map(([reason, count]) => `${reason} ${count.toLocaleString("en")}`).join(", ");
  }

  function egress() {
    const now = Date.now();
    while (earlier.length && now - earlier[0].at > HEALTH_MS) earlier.shift();
    const number = (count) => cell(count.toLocaleString("en"), "num");
    const rules = state.egress.map((rule) => rule.name), more = [...new Set(state.counts.egress.map((one) => one.name))].filter((name) => !rules.includes(name));
    const listed = [...state.egress, ...more.map((name) => ({ name, path: "", target: { none: "no rule has this path", actions: "answers to questions" }[name] || "", route: null }))];
    fill("rules", listed.map((rule) => {
      const counted = since("egress", { by: "name", name: rule.name }), counts = state.counts.egress.filter((one) => one.name === rule.name);
      const target = make("td", {}, make("code", {}, middle(rule.target, 60)));
      target.title = rule.target;
      return make("tr", {}, cell(rule.name, "nowrap"), make("td", {}, health(counted)), make("td", {}, make("code", {}, middle(rule.path, 40))), target, cell(rule.route || "-", "nowrap"),
        number(counted.all.allow + counted.all.deny + counted.all.fail), number(counted.all.deny), number(counted.all.fail), cell(why(counts) || "-", "free"));
    }), 9, "no egress rules");
    const providers = state.providers.map((one) => one.name);
    fill("health", providers.map((name) => {
      const counted = since("ingress", { by: "provider", name }), counts = state.counts.ingress.filter((one) => one.provider === name);
      return make("tr", {}, cell(name, "nowrap"), make("td", {}, health(counted)), number(counted.all.allow + counted.all.deny + counted.all.fail), number(counted.all.allow), number(counted.all.deny),
        number(counted.all.fail), cell(why(counts) || "-", "free"));
    }), 7, "no providers");
    earlier.push({ at: now, counts: state.counts });
  }

  function setup(refused) {
    $("config").replaceChildren(...facts([["ready", state.ready ? "yes" : "no: " + state.why_not], ["generation", state.config.generation], ["version", state.config.version],
      ["applied", `${state.config.taken} (${when(state.config.taken)})`], ["failed reload", refused ? `${refused.at}, version ${refused.version}\n${refused.errors.join("\n")}` : "none"],
      ["secrets", (state.config.secrets || []).map((one) => `${one.path}: ${one.fingerprint || "none (short, or a password)"}`).join("\n") || "none"], ["public URL", state.public_url], ["interactions", state.interactions.toLocaleString("en") + (state.kept ? ` and ${state.kept.toLocaleString("en")} that have ended` : "")], ["events", state.events.toLocaleString("en")], ["this page", state.actions ? "can revoke interactions, capture requests, and replay and drop messages" : "only reads"]]).childNodes);
    fill("routes", state.routes.map((route) => make("tr", {}, cell(route.name, "nowrap"),
      make("td", {}, route.observes ? make("span", { className: "badge observe loud" }, "observes") : route.streams ? "streams" : "enforces"), cell(route.methods.join(", ")),
      make("td", {}, make("code", {}, route.path)), cell(route.provider || "anybody", "nowrap"), cell(route.token || "none"), make("td", {}, route.agent === "agent" ? "" : `${route.agent}: `, make("code", {}, route.forward)))), 7, "none");
    fill("providers", state.providers.map((one) => make("tr", {}, cell(one.name), cell(one.preset || (one.signs ? "a scheme of its own" : "none")), cell(one.signs ? "yes" : "no", one.signs ? "" : "fail"),
      cell(one.networks === null ? "anywhere" : one.networks, "num"))), 4, "none");
    fill("feeds", state.feeds.map((feed) => make("tr", {}, make("td", {}, make("code", {}, feed.label)),
      cell(feed.count === null ? "nothing yet" : feed.kind === "secret" ? "a secret from a handshake" : `${feed.count} ${feed.kind}`, feed.count === null ? "fail" : ""),
      cell(feed.age_seconds === null ? "-" : span(feed.age_seconds), "nowrap"))), 3, "nothing is fetched");
    fill("certificates", state.certificates.map((one) => make("tr", {}, make("td", {}, make("code", {}, one.file)),
      cell(`${when(one.ends)} (${one.ends.slice(0, 10)})`, until(one.ends) < SOON_DAYS * 86400 ? "fail" : ""))), 2, "no TLS here");
  }

  // === Views and polling ===

  const views = ["requests", "interactions", "inbox", "egress", "setup"];
  function show() {
    const wanted = location.hash.slice(1);
    if (views.includes(wanted)) view = wanted;
    const locked = !$("token-form").hidden;
    for (const name of views) $("view-" + name).hidden = locked || name !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === "#" + view) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    document.title = `${view[0].toUpperCase()}${view.slice(1)} - Callgate`;
    paint();
  }
  addEventListener("hashchange", () => { show(); turn(); });

  let timer = 0, turning = null, count = 0;
  /** Refreshes all data at once. */
  async function turn() {
    clearTimeout(timer);
    while (turning) await turning;
    turning = once(true);
    await turning;
    turning = null;
    beat();
  }
  async function once(all) {
    if (!$("token-form").hidden) return;
    try {
      if (all || count % STATE_EVERY === 0) await pullState();
      if (!Object.keys(reasons).length) reasons = await api("reasons");
      if (!paused || began === null) await pull();
      if (view === "interactions" && !$("ask").open && (all || count % STATE_EVERY === 0)) await interactions();
      if (view === "inbox" && !$("ask").open && (all || count % STATE_EVERY === 0)) await messages();
      count++;
      linked("on", paused ? "paused" : "live");
    } catch (error) {
      linked("off", error instanceof Refused ? error.message.replace(/`/g, "") : "no response from Callgate");
    }
  }
  function linked(className, text) {
    $("link").className = "dot " + className;
    setText($("link"), text);
  }
  function beat() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (!turning && !paused && !document.hidden) {
        turning = once(false);
        await turning;
        turning = null;
      }
      beat();
    }, EVERY_MS);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) turn(); });
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Resume" : "Pause";
    say(paused ? "Paused" : "Live");
    if (paused) linked("", "paused"); else turn();
  });

  show();
  turn();
})();
