"use strict";
// The page of inspect_dataset. Texts of the data only ever become text nodes; tokens are drawn when looked at.

const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#d9772b", "#3b6fb6", "#4a9a5c", "#a04fa8", "#b8a027", "#2f9c9c", "#c14a5e", "#6d6ad1"];
const PADDING = -1;
const PAIR_HELP = "Attention: queries down, keys to the right. Coloured pairs attend, white ones are masked.";
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const percent = (part, whole) => (whole ? ((100 * part) / whole).toFixed(1) : "0.0") + " %";
const colour = (source) => (source === PADDING ? "#c9ced6" : COLOURS[source % COLOURS.length]);
const sourceName = (source) => (source === PADDING ? "padding" : DATA.sources[source].name);

let found = DATA.items.map((_, i) => i); // items that pass the search
let current = null; // number of the item on display
let row = null; // its arrays, see unpack()
let hits = []; // first token of each match of the text searched for
let hitNow = -1;

function element(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

// The arrays of a packed row out of their compact form (data_prep/inspect_page.py).
function unpack(item) {
  const n = item.tokens.length;
  const labels = item.tokens.slice(1).concat([0]);
  for (const [at, label] of item.labels_that_are_not_the_next_token) labels[at] = label;
  const positions = [];
  for (const [start, length] of item.position_runs) for (let i = 0; i < length; i++) positions.push(start + i);
  const mask = [];
  item.loss_mask_runs.forEach((length, i) => { for (let k = 0; k < length; k++) mask.push(i % 2); });
  const borders = item.cu_seqlens;
  const segment = new Int32Array(n);
  for (let s = 0; s + 1 < borders.length; s++) segment.fill(s, borders[s], borders[s + 1]);
  const starts = [0];
  for (const width of item.widths) starts.push(starts[starts.length - 1] + width);
  // a token is trained where the position before it has a loss on predicting it
  const trained = mask.map((_, i) => i > 0 && segment[i] === segment[i - 1] && mask[i - 1] === 1);
  return { item, n, labels, positions, mask, borders, segment, starts, trained };
}

const tokenText = (i) => row.item.text.slice(row.starts[i], row.starts[i + 1]);

function pattern() {
  const text = $("text").value;
  return text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu") : null;
}

function search() {
  const [wanted, number, source] = [pattern(), $("number").value.trim(), $("source").value];
  found = [];
  DATA.items.forEach((item, i) => {
    if (number !== "" && !item.numbers.includes(Number(number))) return;
    if (source !== "" && !item.segment_sources.includes(Number(source))) return;
    if (wanted && item.text.search(wanted) < 0) return;
    found.push(i);
  });
  const list = $("list");
  list.replaceChildren();
  for (const i of found) {
    const item = DATA.items[i];
    const line = element("li", item.title, { "data-item": i });
    line.append(element("small", item.preview));
    list.append(line);
  }
  $("found").textContent = `${count(found.length)} of ${count(DATA.items.length)} ${DATA.kind}s shown here` +
    (DATA.items.length < DATA.total ? `; the ${DATA.kind === "row" ? "plan" : "data"} has ${count(DATA.total)}` : "");
  if (found.includes(current)) show(current);
  else if (found.length) show(found[0]);
  else showNothing();
}

function showNothing() {
  current = row = null;
  $("item").hidden = true;
  document.querySelector("#bar h1").textContent = $("statistics").hidden ? "Nothing found" : "Statistics of the sources";
  markCurrent();
}

function markCurrent() {
  for (const line of $("list").children) line.classList.toggle("current", Number(line.dataset.item) === current);
  const line = document.querySelector("#list .current");
  if (line) line.scrollIntoView({ block: "nearest" });
  const place = found.indexOf(current);
  $("previous").disabled = place <= 0;
  $("next").disabled = place < 0 ? !found.length : place + 1 >= found.length;
  for (const id of ["hits", "next-hit"]) $(id).hidden = !hits.length || current === null;
}

function show(i) {
  current = i;
  row = unpack(DATA.items[i]);
  $("statistics").hidden = true;
  $("item").hidden = false;
  document.querySelector("main").scrollTop = 0;
  document.querySelector("#bar h1").textContent = row.item.title;
  const used = row.n - (row.item.segment_sources.at(-1) === PADDING ? row.n - row.borders.at(-2) : 0);
  const losses = row.mask.reduce((sum, value) => sum + value, 0);
  $("counts").textContent = `${count(row.n)} tokens, ${count(losses)} trained (${percent(losses, row.n)})` +
    (DATA.kind === "row" ? `; ${percent(used, row.n)} full, attention inside each conversation only` : "");
  $("attention").hidden = DATA.kind !== "row"; // a conversation alone is one triangle
  drawSegments();
  drawTokens();
  drawPicture();
  markCurrent();
  if (hits.length) nextHit();
  try { history.replaceState(null, "", `#${i}`); } catch (error) { /* some browsers refuse this for file:// */ }
}

function drawSegments() {
  const body = document.querySelector("#segments tbody");
  body.replaceChildren();
  row.item.segment_sources.forEach((source, s) => {
    const [from, to] = [row.borders[s], row.borders[s + 1]];
    let trained = 0;
    for (let i = from; i < to; i++) trained += row.mask[i];
    const line = element("tr", undefined, { "data-token": from });
    const name = element("td");
    name.append(element("span", "", { class: "swatch", style: `background:${colour(source)}` }), sourceName(source));
    const number = source === PADDING ? "" : count(row.item.conversations[s]);
    line.append(element("td", s + 1), name);
    for (const value of [number, count(from), count(to - 1), count(to - from), count(trained)]) line.append(element("td", value));
    body.append(line);
  });
}

function drawTokens() {
  const place = $("tokens");
  const parts = document.createDocumentFragment();
  const inHit = new Set();
  const wanted = pattern();
  hits = [];
  hitNow = -1;
  if (wanted) {
    let token = 0;
    for (const match of row.item.text.matchAll(wanted)) {
      const end = match.index + match[0].length;
      while (row.starts[token + 1] <= match.index) token++;
      hits.push(token);
      for (let i = token; i < row.n && row.starts[i] < end; i++) inHit.add(i);
    }
  }
  row.item.segment_sources.forEach((source, s) => {
    const [from, to] = [row.borders[s], row.borders[s + 1]];
    const title = source === PADDING ? `padding, ${count(to - from)} tokens, no loss`
      : `segment ${s + 1}: ${sourceName(source)}, conversation ${count(row.item.conversations[s])}, tokens ${count(from)} to ${count(to - 1)} (${count(to - from)})`;
    parts.append(element("span", title, { class: "border", style: `border-color:${colour(source)}` }));
    if (source === PADDING) return;
    for (let i = from; i < to; i++) {
      const node = element("i", tokenText(i), { "data-i": i, class: row.trained[i] ? "trained" : "context" });
      if (inHit.has(i)) node.classList.add("hit");
      parts.append(node);
    }
  });
  place.replaceChildren(parts);
}

const tokenNode = (i) => document.querySelector(`#tokens i[data-i="${i}"]`);

function nextHit() {
  const before = document.querySelectorAll(".hit-now");
  before.forEach((node) => node.classList.remove("hit-now"));
  hitNow = (hitNow + 1) % hits.length;
  const node = tokenNode(hits[hitNow]);
  $("hits").textContent = `match ${hitNow + 1} of ${hits.length}`;
  node.classList.add("hit-now");
  node.scrollIntoView({ block: "center" });
}

// Queries go down, keys to the right: inside a segment the lower triangle, outside of segments nothing.
function drawPicture() {
  const canvas = $("picture");
  const side = 400 * Math.max(2, window.devicePixelRatio || 1);
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  const scale = side / row.n;
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
  row.item.segment_sources.forEach((source, s) => {
    const [a, b] = [row.borders[s] * scale, row.borders[s + 1] * scale];
    pen.fillStyle = colour(source);
    pen.beginPath();
    pen.moveTo(a, a);
    pen.lineTo(b, b);
    pen.lineTo(a, b);
    pen.fill();
    pen.strokeStyle = "#5d6673";
    pen.lineWidth = 1.5;
    pen.strokeRect(a, a, b - a, b - a);
  });
}

function pairAt(event) {
  const box = $("picture").getBoundingClientRect();
  const at = (value) => Math.min(row.n - 1, Math.max(0, Math.floor(value * row.n)));
  return [at((event.clientY - box.top) / box.height), at((event.clientX - box.left) / box.width)];
}

function describePair(query, key) {
  const [ours, theirs] = [row.segment[query], row.segment[key]];
  const pair = `query ${count(query)} (segment ${ours + 1}), key ${count(key)} (segment ${theirs + 1}): `;
  if (ours !== theirs) return pair + "masked, another segment";
  return pair + (key > query ? "masked, a later token" : "attends");
}

function describeToken(i) {
  const next = i + 1 < row.n && row.labels[i] === row.item.tokens[i + 1] && row.segment[i] === row.segment[i + 1];
  return [
    `token ${count(i)}  ${JSON.stringify(tokenText(i))}`,
    `id ${row.item.tokens[i]}   position_id ${row.positions[i]}`,
    `label ${row.labels[i]}${next ? "  " + JSON.stringify(tokenText(i + 1)) : "  (none: the conversation ends here)"}`,
    `loss mask ${row.mask[i]}   segment ${row.segment[i] + 1}, ${sourceName(row.item.segment_sources[row.segment[i]])}`,
    row.trained[i] ? "trained: the loss asks for this token" : "context: read only",
  ].join("\n");
}

function showStatistics() {
  const place = $("statistics");
  place.replaceChildren();
  DATA.sources.forEach((source, number) => {
    const box = element("div", undefined, { class: "source" });
    box.append(element("h2", source.name), element("div", source.prefix, { class: "soft" }));
    for (const rows of source.tables) {
      const table = element("table");
      for (const cells of rows) {
        const line = element("tr");
        cells.forEach((cell) => line.append(element("td", cell)));
        table.append(line);
      }
      box.append(table);
    }
    const most = Math.max(...source.histogram.counts);
    const bars = element("div", undefined, { class: "histogram" });
    source.histogram.counts.forEach((value, i) => {
      const title = `${count(source.histogram.edges[i])} to ${count(source.histogram.edges[i + 1] - 1)} tokens: ${count(value)} conversations`;
      bars.append(element("div", "", { title, style: `height:${(100 * value) / most}%;background:${colour(number)}` }));
    });
    const axis = element("div", undefined, { class: "axis soft" });
    axis.append(element("span", count(source.histogram.edges[0])), element("span", "tokens a conversation"), element("span", count(source.histogram.edges.at(-1) - 1)));
    box.append(bars, axis);
    place.append(box);
  });
  place.hidden = false;
  showNothing();
}

function move(step) {
  const place = found.indexOf(current);
  const next = place < 0 ? 0 : place + step;
  if (next >= 0 && next < found.length) show(found[next]);
}

function flash(i) {
  const node = tokenNode(i);
  if (!node) return;
  document.querySelectorAll(".flash").forEach((old) => old.classList.remove("flash"));
  node.classList.add("flash");
  node.scrollIntoView({ block: "center" });
}

$("source").append(element("option", "all sources", { value: "" }));
DATA.sources.forEach((source, i) => $("source").append(element("option", source.name, { value: i })));
for (const id of ["text", "number", "source"]) $(id).addEventListener("input", search);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
$("next").addEventListener("click", () => move(1));
$("previous").addEventListener("click", () => move(-1));
$("next-hit").addEventListener("click", nextHit);
$("show-statistics").addEventListener("click", showStatistics);
$("list").addEventListener("click", (event) => {
  const line = event.target.closest("li");
  if (line) show(Number(line.dataset.item));
});
document.querySelector("#segments tbody").addEventListener("click", (event) => {
  flash(Number(event.target.closest("tr").dataset.token));
});
$("picture").addEventListener("mousemove", (event) => { $("pair").textContent = describePair(...pairAt(event)); });
$("picture").addEventListener("mouseleave", () => { $("pair").textContent = PAIR_HELP; });
$("pair").textContent = PAIR_HELP;
$("picture").addEventListener("click", (event) => flash(pairAt(event)[0]));
$("tokens").addEventListener("mousemove", (event) => {
  const node = event.target.closest("i");
  const tip = $("tip");
  tip.style.display = node ? "block" : "none";
  if (!node) return;
  tip.textContent = describeToken(Number(node.dataset.i));
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 18 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
});
$("tokens").addEventListener("mouseleave", () => { $("tip").style.display = "none"; });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Enter" && hits.length) nextHit();
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = {
    j: () => move(1), n: () => move(1), ArrowRight: () => move(1),
    k: () => move(-1), p: () => move(-1), ArrowLeft: () => move(-1),
    "/": () => $("text").focus(), Enter: () => hits.length && nextHit(),
  };
  if (actions[event.key] && !(event.key === "Enter" && event.target.matches("button"))) {
    event.preventDefault();
    actions[event.key]();
  }
});

const asked = Number(location.hash.slice(1));
if (location.hash && Number.isInteger(asked) && asked >= 0 && asked < DATA.items.length) current = asked;
search();
