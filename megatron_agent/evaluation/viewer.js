"use strict";
// The page of transcripts. Texts only ever become text nodes; an episode is read from its line when it is opened.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LINES = document.getElementById("lines").textContent.split("\n");
const LONGEST = 100000; // characters of a text that are drawn at once
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const heading = document.querySelector("#bar h1");

let found = []; // numbers of the episodes that pass the filters
let current = null; // number of the one on display
const texts = []; // lower-case text of each episode, made by the first search

function element(tag, text, attributes) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = visible(text);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
}

// Characters that act instead of being seen: controls, those that turn the direction of writing, lone surrogates.
function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0);
    if (character === "\t" || character === "\n") return character;
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

const episodeAt = (i) => JSON.parse(LINES[i]);
const contextOf = (i) => DATA.contexts[DATA.index[i].context];
const textOf = (message) => (message.parts ? message.parts.map((part) => part[1]).join("\n") : message.text ?? message.content);

function searchable(i) {
  if (texts[i] === undefined) {
    const episode = episodeAt(i);
    const head = [DATA.index[i].id, DATA.index[i].category, episode.error ?? ""];
    texts[i] = [...head, ...episode.messages.map(textOf)].join("\n").toLowerCase();
  }
  return texts[i];
}

function number(id) {
  const value = $(id).value;
  return value === "" ? null : Number(value);
}

function filter() {
  const [task, status, text] = [$("task").value, $("status").value, $("text").value.toLowerCase()];
  const [least, most] = [number("least"), number("most")];
  found = [];
  DATA.index.forEach((entry, i) => {
    if (task !== "" && entry.task !== task) return;
    if (status !== "" && entry.status !== status) return;
    if (least !== null && !(entry.reward !== null && entry.reward >= least)) return;
    if (most !== null && !(entry.reward !== null && entry.reward <= most)) return;
    if (text !== "" && !searchable(i).includes(text)) return;
    found.push(i);
  });
  drawList();
  if (found.includes(current)) show(current);
  else if (found.length) show(found[0]);
  else showNothing();
}

function drawList() {
  const lines = found.map((i) => {
    const entry = DATA.index[i];
    const line = element("li", undefined, { "data-episode": i });
    line.append(element("span", entry.id), ending(entry, "small"));
    return line;
  });
  $("list").replaceChildren(...lines);
  const rewards = found.map((i) => DATA.index[i].reward).filter((reward) => reward !== null);
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  $("found").textContent = `${count(found.length)} of ${count(DATA.index.length)} episodes` +
    (rewards.length ? `, mean reward ${mean.toFixed(3)}` : "");
}

function ending(entry, tag) {
  const reward = entry.reward === null ? "" : `reward ${Number(entry.reward.toFixed(3))}, `;
  const text = `${entry.task}, ${reward}${entry.status}, ${count(entry.rounds)} round${entry.rounds === 1 ? "" : "s"}`;
  const node = element(tag, text, { title: text }); // the list cuts what is long
  if (entry.reward !== null) node.className = entry.reward === 1 ? "good" : entry.reward === 0 ? "bad" : "";
  return node;
}

function showNothing() {
  current = null;
  $("episode").hidden = true;
  heading.textContent = "Nothing found";
  markCurrent();
}

function show(i) {
  current = i;
  const [entry, episode, context] = [DATA.index[i], episodeAt(i), contextOf(i)];
  $("episode").hidden = false;
  document.querySelector("main").scrollTop = 0;
  heading.textContent = visible(entry.id);
  $("facts").textContent = visible(facts(entry, episode).join(" · "));
  const details = $("context");
  details.hidden = !context.length;
  details.open = false;
  details.querySelector("summary").textContent = `Instruction and demonstrations (${count(context.length)} messages)`;
  details.querySelector("div").replaceChildren(...context.map((message) => box(message.role, "", message.content)));
  $("messages").replaceChildren(...episode.messages.flatMap(boxes));
  $("end").replaceChildren(ending(entry, "span"), document.createTextNode(episode.error ? ": " + visible(episode.error) : ""));
  markCurrent();
  try { history.replaceState(null, "", `#${i}`); } catch (error) { /* some browsers refuse this for file:// */ }
}

function facts(entry, episode) {
  const parts = [entry.task, entry.category];
  for (const [name, value] of Object.entries(episode.scores || {})) parts.push(`${name} ${value}`);
  if (episode.seconds != null) parts.push(`${episode.seconds} s`);
  for (const name of ["prompt_tokens", "completion_tokens"]) {
    if (episode[name] != null) parts.push(`${count(episode[name])} ${name.replace("_", " ")}`);
  }
  return parts.filter((part) => part);
}

function boxes(message, place) {
  if (!message.parts) return [box(place === 0 ? "task" : "observation", place === 0 ? "task" : "observation", message.text)];
  const titles = { text: "reply", empty: "empty reply", whole: "the whole reply, of which the above stayed in the conversation" };
  return message.parts.map(([kind, text]) => (titles[kind] ? box(titles[kind], "other", text) : box(kind, kind, text)));
}

function box(title, kind, text) {
  const node = element("div", undefined, { class: `message ${kind}` });
  const body = element("pre");
  body.append(...marked(text.slice(0, LONGEST)));
  node.append(element("h2", title), body);
  if (text.length > LONGEST) {
    const more = element("button", `Show all ${count(text.length)} characters`, { type: "button" });
    more.addEventListener("click", () => { body.replaceChildren(...marked(text)); more.remove(); });
    node.append(more);
  }
  return node;
}

// Text nodes, with what is searched for in <mark>.
function marked(text) {
  const shown = visible(text);
  const wanted = visible($("text").value);
  if (!wanted) return [document.createTextNode(shown)];
  const pattern = new RegExp(`(${wanted.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")})`, "giu");
  return shown.split(pattern).map((piece, i) => (i % 2 ? element("mark", piece) : document.createTextNode(piece)));
}

function markCurrent() {
  for (const line of document.querySelectorAll("#list .current")) line.classList.remove("current");
  const line = current === null ? null : $("list").children[found.indexOf(current)];
  if (line) {
    line.classList.add("current");
    line.scrollIntoView({ block: "nearest" });
  }
  const place = found.indexOf(current);
  $("previous").disabled = place <= 0;
  $("next").disabled = place < 0 || place + 1 >= found.length;
}

function move(step) {
  const next = found.indexOf(current) + step;
  if (next >= 0 && next < found.length) show(found[next]);
}

function choices(id, name) {
  $(id).append(element("option", `all ${name === "task" ? "tasks" : "endings"}`, { value: "" }));
  for (const value of [...new Set(DATA.index.map((entry) => entry[name]))].sort()) {
    const option = element("option", value);
    option.value = value;
    $(id).append(option);
  }
}

choices("task", "task");
choices("status", "status");
if (DATA.links.pages.length > 1) {
  $("pages").hidden = false;
  DATA.links.pages.forEach((page, i) => {
    const text = `page ${i + 1} (${count(page.episodes)})`;
    $("pages").append(i === DATA.links.page ? element("b", text) : element("a", text, { href: encodeURIComponent(page.name) }));
  });
}
let waiting = 0;
for (const id of ["task", "status", "least", "most"]) $(id).addEventListener("input", filter);
$("text").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
$("next").addEventListener("click", () => move(1));
$("previous").addEventListener("click", () => move(-1));
$("list").addEventListener("click", (event) => {
  const line = event.target.closest("li");
  if (line) show(Number(line.dataset.episode));
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = {
    j: () => move(1), n: () => move(1), ArrowRight: () => move(1),
    k: () => move(-1), p: () => move(-1), ArrowLeft: () => move(-1),
    "/": () => $("text").focus(),
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});

const asked = Number(location.hash.slice(1));
if (location.hash && Number.isInteger(asked) && asked >= 0 && asked < DATA.index.length) current = asked;
filter();
