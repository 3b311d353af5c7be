// The page: its settings live in `state` and in the address after #; every change evaluates the step anew and redraws.
const START = { choice: 0, at: DATA.axes.map((axis) => axis.start), hardware: DATA.opens.hardware, budget: DATA.opens.budget };
const state = { ...START, at: [...START.at], axis: Math.max(0, DATA.axes.findIndex((axis) => axis.batch)) };
const chosen = () => DATA.choices[state.choice];
const modes = [...new Set(DATA.choices.map((c) => c.mode))];
const modeNames = { train: "Train", infer: "Infer" };
const unique = (values) => [...new Set(values)];

function choiceWith(wanted) {
  const want = { ...chosen(), ...wanted };
  const score = (c) => (c.mode === want.mode ? 4 : 0) + (c.dtype === want.dtype ? 2 : 0) + (c.optimizer === want.optimizer ? 1 : 0);
  const must = Object.keys(wanted);
  let best = -1;
  DATA.choices.forEach((c, i) => {
    if (must.every((k) => c[k] === wanted[k]) && (best < 0 || score(c) > score(DATA.choices[best]))) best = i;
  });
  return best;
}

// Settings in the address ---------------------------------------------------------------------------------------------------------

const RESERVED = ["mode", "optimizer", "dtype", "on", "budget"];
const keyOf = (axis) => (RESERVED.includes(axis.symbol) ? `size-${axis.symbol}` : axis.symbol);

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const wanted = Object.fromEntries(["mode", "dtype", "optimizer"].filter((k) => given.has(k)).map((k) => [k, given.get(k)]));
  if (wanted.mode === "infer") delete wanted.optimizer;
  const choice = choiceWith(wanted);
  if (choice >= 0) state.choice = choice;
  DATA.axes.forEach((axis, i) => {
    const size = Number(given.get(keyOf(axis)));
    if (given.has(keyOf(axis)) && size > 0) {
      state.at[i] = axis.values.reduce((best, v, k) => (Math.abs(v - size) < Math.abs(axis.values[best] - size) ? k : best), 0);
    }
  });
  if (given.has("on") && (given.get("on") === "" || DATA.hardware.some((h) => h.name === given.get("on")))) state.hardware = given.get("on");
  if (given.has("budget")) state.budget = given.get("budget");
}

function writeAddress() {
  const { mode, optimizer, dtype } = chosen();
  const parts = new URLSearchParams();
  DATA.axes.forEach((axis, i) => parts.set(keyOf(axis), axis.values[state.at[i]]));
  parts.set("mode", mode);
  if (optimizer) parts.set("optimizer", optimizer);
  parts.set("dtype", dtype);
  if (state.hardware) parts.set("on", state.hardware);
  if (state.budget) parts.set("budget", state.budget);
  clearTimeout(writeAddress.soon);
  writeAddress.soon = setTimeout(() => history.replaceState(null, "", `#${parts}`), 120);
}

// Limits ---------------------------------------------------------------------------------------------------------------------------

function places() {
  const found = DATA.hardware.filter((h) => h.name === state.hardware).map((h) => ({ ...h, title: h.title }));
  let error = "";
  if (state.budget.trim()) {
    try {
      const bytes = parseBudget(state.budget);
      found.push({ name: "budget", title: `A budget of ${state.budget.trim()}`, kind: "budget", tiers: [["the budget", bytes]] });
    } catch (e) {
      error = e.message;
    }
  }
  byId("budget-error").textContent = error;
  byId("budget").setAttribute("aria-invalid", error ? "true" : "false");
  return found;
}

// Controls -------------------------------------------------------------------------------------------------------------------------

function buildControls() {
  for (const mode of modes) {
    const input = el("input", { type: "radio", name: "mode", value: mode, onchange: () => change({ choice: choiceWith({ mode }) }) });
    byId("modes").append(el("label", {}, input, el("span", {}, modeNames[mode])));
  }
  const pick = (id, key, values) => {
    byId(id).append(...values.map((v) => el("option", { value: v }, v)));
    byId(id).addEventListener("change", (e) => change({ choice: choiceWith(key === "optimizer" ? { mode: "train", optimizer: e.target.value } : { [key]: e.target.value, mode: chosen().mode }) }));
  };
  pick("optimizer", "optimizer", unique(DATA.choices.map((c) => c.optimizer).filter(Boolean)));
  pick("dtype", "dtype", unique(DATA.choices.map((c) => c.dtype)));
  DATA.axes.forEach((axis, i) => {
    const id = `axis-${i}`;
    const name = axis.batch ? `Batch ${axis.symbol}` : `Size ${axis.symbol}`;
    const slider = el("input", {
      type: "range", id, min: 0, max: axis.values.length - 1, step: 1, "data-symbol": axis.symbol, disabled: axis.values.length < 2,
      oninput: (e) => change({ at: state.at.map((k, j) => (j === i ? Number(e.target.value) : k)) }),
    });
    byId("sizes").append(el("div", { class: "size" },
      el("div", { class: "size-head" }, el("label", { for: id }, name), el("output", { id: `${id}-value`, for: id })), slider,
      el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, grouped(axis.values[0])), el("span", {}, grouped(axis.values.at(-1))))));
  });
  if (!DATA.axes.length) byId("sizes").append(el("p", { class: "note" }, "All sizes of this network are numbers."));
  const groups = unique(DATA.hardware.map((h) => h.kind)).map((kind) =>
    el("optgroup", { label: kind }, ...DATA.hardware.filter((h) => h.kind === kind).map((h) => el("option", { value: h.name }, h.title))));
  byId("hardware").append(el("option", { value: "" }, "none"), ...groups);
  byId("hardware").addEventListener("change", (e) => change({ hardware: e.target.value }));
  byId("budget").addEventListener("input", (e) => change({ budget: e.target.value }));
  byId("controls").addEventListener("submit", (e) => e.preventDefault());
  byId("reset").addEventListener("click", () => change({ ...START, at: [...START.at] }));
  byId("by-axis-of").append(...DATA.axes.map((axis, i) => el("option", { value: i }, axis.batch ? `batch ${axis.symbol}` : `size ${axis.symbol}`)));
  byId("by-axis-of").addEventListener("change", (e) => change({ axis: Number(e.target.value) }));
  byId("print").addEventListener("click", () => window.print());
  window.addEventListener("hashchange", () => { readAddress(); refresh(); });
}

function setControls() {
  const { mode, optimizer, dtype } = chosen();
  for (const input of byId("modes").querySelectorAll("input")) input.checked = input.value === mode;
  byId("optimizer").disabled = mode !== "train";
  if (optimizer) byId("optimizer").value = optimizer;
  byId("dtype").value = dtype;
  byId("dtype").disabled = byId("dtype").options.length < 2;
  byId("optimizer-field").hidden = !modes.includes("train");
  DATA.axes.forEach((axis, i) => {
    const value = String(axis.values[state.at[i]]);
    byId(`axis-${i}`).value = state.at[i];
    byId(`axis-${i}`).setAttribute("aria-valuetext", value);
    byId(`axis-${i}-value`).textContent = grouped(value);
  });
  byId("hardware").value = state.hardware;
  if (byId("budget").value !== state.budget) byId("budget").value = state.budget;
  byId("by-axis-of").value = state.axis;
}

function buildTheme() {
  const themes = ["system", "light", "dark"];
  let now = "system";
  try { now = localStorage.getItem("memest-theme") || now; } catch { /* storage is closed to this file: the choice is not remembered */ }
  const show = () => {
    if (now === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    byId("theme").textContent = `Theme: ${now}`;
  };
  byId("theme").addEventListener("click", () => {
    now = themes[(themes.indexOf(now) + 1) % themes.length];
    try { localStorage.setItem("memest-theme", now); } catch { /* as above */ }
    show();
  });
  show();
}

// Results --------------------------------------------------------------------------------------------------------------------------

function describe() {
  const { mode, optimizer, dtype } = chosen();
  const sizes = Object.fromEntries(DATA.axes.map((axis, i) => [axis.symbol, axis.values[state.at[i]]]));
  const dim = (d) => (typeof d === "string" ? sizes[d] : typeof d === "number" ? d : "\u2026");
  const shapes = DATA.inputs.map((i) => `${DATA.inputs.length > 1 ? `${i.name} ` : ""}${i.shape.map(dim).join("\u00d7")}`);
  const kind = mode === "train" ? `One training step, ${optimizer}, ${DATA.loss}` : "One inference call";
  return `${kind}, ${dtype}, input ${shapes.join(", ")}. ${DATA.where}.${DATA.replayed ? " Bytes requested, before the allocator rounds them into blocks." : ""}`;
}

function momentText(found, moment) {
  if (moment === 0) return { phase: "before the step", layer: "", op: "" };
  return found.program.runs[found.program.where[moment - 1]];
}

function showPeak(found, limits) {
  byId("peak-short").textContent = formatBytes(found.peak);
  byId("peak-bytes").textContent = `${grouped(found.peak)} bytes`;
  const run = momentText(found, found.best);
  byId("moment").replaceChildren("Reached in ", el("b", {}, words(run.phase)), run.layer ? `, ${run.layer}` : "", run.op ? `, ${run.op}` : "", `. ${formatBytes(found.resident)} are there before the step.`);
  const shown = limits.map((place) => {
    const v = verdict(place, found.peak);
    const capacity = Number(v.whole);
    const scale = Math.max(capacity, Number(found.peak));
    const gauge = el("div", { class: "gauge", "aria-hidden": "true" }, filled(Number(found.peak) / scale));
    const mark = el("b");
    mark.style.left = `calc(${(100 * capacity / scale).toFixed(2)}% - 2px)`;
    gauge.append(mark);
    return el("div", { class: `verdict ${v.outcome}` }, el("p", { class: "word" }, v.word[0].toUpperCase() + v.word.slice(1)), gauge, el("p", { class: "detail" }, v.detail), el("p", { class: "place" }, place.title));
  });
  if (!shown.length) shown.push(el("p", { class: "note" }, "Choose hardware or give a budget to see whether it fits."));
  const claims = limits.map((place) => DATA.claims[place.kind]);
  const unsure = claims.filter((claim) => !claim.decides);
  shown.push(...unique((unsure.length ? unsure : claims).map((claim) => claim.note)).map((note) => el("p", { class: "claim" }, note)));
  byId("verdicts").replaceChildren(...shown);
}

function showComposition(found) {
  const parts = STACK.map((c) => [c, found.history[c][found.best]]).filter(([, bytes]) => bytes > 0);
  byId("bar").replaceChildren(...parts.map(([c, bytes]) => {
    const part = filled(Number(bytes) / Number(found.peak));
    part.style.background = `var(--c-${DATA.categories[c]})`;
    return part;
  }));
  byId("legend").replaceChildren(...parts.sort((a, b) => (a[1] < b[1] ? 1 : -1)).map(([c, bytes]) =>
    el("li", { "data-category": DATA.categories[c], "data-bytes": String(bytes) }, swatch(c), el("span", { class: "label" }, words(DATA.categories[c])), el("span", {}, formatBytes(bytes)), el("small", {}, percent(bytes, found.peak)))));
}

function showMoment(found, moment) {
  const run = momentText(found, moment);
  const change = moment ? found.totals[moment] - found.totals[moment - 1] : Z(0);
  const event = moment ? `event ${grouped(moment)} of ${grouped(found.totals.length - 1)}` : "before the first event";
  const moved = moment ? `${change < 0 ? "releases" : "allocates"} ${formatBytes(change < 0 ? -change : change)}` : "";
  const parts = [event, words(run.phase), run.layer, run.op, moved].filter(Boolean);
  byId("readout").replaceChildren(el("b", {}, formatBytes(found.totals[moment])), ...parts.map((p) => el("span", {}, p)), ...(moment === found.best ? [el("b", {}, "the peak")] : []));
  const box = byId("chart");
  box.setAttribute("aria-valuemin", "0");
  box.setAttribute("aria-valuemax", String(found.totals.length - 1));
  box.setAttribute("aria-valuenow", String(moment));
  box.setAttribute("aria-valuetext", `${formatBytes(found.totals[moment])} alive, ${parts.join(", ")}${moment === found.best ? ", the peak" : ""}`);
}

function showAlternatives(found, limits) {
  const alternatives = DATA.choices.map((c, i) => ({
    name: [c.optimizer || "inference", unique(DATA.choices.map((d) => d.dtype)).length > 1 ? c.dtype : ""].filter(Boolean).join(", "),
    peak: i === state.choice ? found.peak : peakOf(i, state.at), here: i === state.choice, go: () => change({ choice: i }),
  }));
  lines(byId("by-choice"), alternatives, limits, "The peak of every choice at these sizes");
  const axis = DATA.axes[state.axis];
  if (!axis) { byId("by-axis").closest("div").parentElement.hidden = true; return; }
  const rows = axis.values.map((value, k) => {
    const at = state.at.map((old, i) => (i === state.axis ? k : old));
    return { name: `${axis.symbol} = ${grouped(value)}`, value, peak: peakOf(state.choice, at), here: k === state.at[state.axis], go: () => change({ at }) };
  });
  lines(byId("by-axis"), rows, limits, `The peak for each ${axis.symbol}`);
  byId("largest").textContent = limits.length ? largestText(axis, rows, limits) : "";
}

function largestText(axis, rows, limits) {
  const last = rows.filter((r) => r.peak !== null && worst(limits, r.peak) !== "short").at(-1);
  const what = fitting(limits);
  if (!last) return what === "fits" ? `No ${axis.symbol} here fits.` : `There is no ${axis.symbol} here at which ${what}.`;
  const which = what === "fits" ? "that fits" : `at which ${what}`;
  return `The largest ${axis.symbol} here ${which} is ${grouped(last.value)}${last === rows.at(-1) ? " or more" : ""}.`;
}

function showTensors(found, held) {
  const top = held.slice(0, 12);
  table(byId("tensors"), "Largest tensors alive at the peak", [["Bytes", true], ["Share", true], ["Category", false], ["Owner", false, "name"], ["Why it is there", false, "wide"]],
    top.map((h) => [formatBytes(h.bytes), percent(h.bytes, found.peak), el("span", { class: "kind" }, swatch(h.category), words(DATA.categories[h.category])), h.layer, reasonOf(h, chosen())]),
    held.length > top.length ? [formatBytes(held.slice(12).reduce((sum, h) => sum + h.bytes, Z(0))), percent(held.slice(12).reduce((sum, h) => sum + h.bytes, Z(0)), found.peak), `${grouped(held.length - 12)} others`, "", ""] : null);
}

function showFormula(found, held) {
  const parts = new Map();
  let constant = Z(0);
  let kernel = Z(0);
  for (const h of held) {
    if (h.form === null) { kernel += h.bytes; continue; }
    const form = DATA.forms[h.form];
    constant += form[0];
    for (let i = 1; i < form.length; i += 2) parts.set(form[i + 1], (parts.get(form[i + 1]) ?? Z(0)) + form[i]);
  }
  const rows = [...parts].filter(([, c]) => c > 0 || c < 0).map(([term, c]) => [typesetPart(c, term), c * found.terms[term]]);
  rows.sort((a, b) => (a[1] < b[1] ? 1 : -1));
  if (constant > 0) rows.push([typesetPart(constant, null), constant]);
  if (kernel > 0) rows.push([math(m("msub", m("mi", "k"), m("mi", "t"))), kernel]);
  table(byId("formula"), "The terms of the peak", [["Term", false, "wide"], ["Bytes here", true, "", "bytes"], ["Share", true]],
    rows.map(([shown, bytes]) => [shown, grouped(bytes), percent(bytes, found.peak)]), ["Peak", grouped(found.peak), "100.0 %"]);
  byId("formula-note").textContent = kernel > 0
    ? "The terms alive at this peak, summed over its tensors. What a library's kernel holds beside its tensors has no formula: the library searches for its fastest kernel. That number is exact, from playing the search at these sizes."
    : "The terms alive at this peak, summed over its tensors.";
  const texts = found.program.conditions.map((c) => c.replace(/^(\w+) % (\d+) == 0$/, "$2 divides $1").replace(">=", "\u2265").replace("<=", "\u2264").replace("!=", "\u2260").replace("==", "="));
  byId("conditions").replaceChildren(...(texts.length ? [el("p", { class: "note" }, "The step runs this way where:"), el("ul", { class: "conditions" }, ...texts.map((t) => el("li", {}, t)))] : []));
}

let layerTable;

function layerRows(found, held) {
  const { program, forms } = found;
  const kept = new Map();
  program.born.forEach((event, number) => {
    const size = program.made[3 * number];
    if (program.made[3 * number + 1] !== CATEGORY.activation || size < 0) return;
    const name = program.runs[program.where[event]].layer;
    kept.set(name, (kept.get(name) ?? Z(0)) + forms[size]);
  });
  const there = new Map();
  for (const h of held) there.set(h.layer, (there.get(h.layer) ?? Z(0)) + h.bytes);
  return program.layers.map(([name, op, shapes, elements, bytes, parameters], i) => {
    const layer = DATA.strings[name];
    const owned = unique([layer, ...parameters.map((p) => DATA.strings[p])]);
    return {
      number: i + 1, name: layer, op: DATA.strings[op], shape: shapes.map((dims) => dims.map((d) => forms[d]).join("\u00d7")).join(", "),
      elements, bytes, kept: kept.get(layer) ?? Z(0), there: owned.reduce((sum, n) => sum + (there.get(n) ?? Z(0)), Z(0)),
    };
  });
}

function showLayers(found, held) {
  const rows = layerRows(found, held);
  const zero = (n, text) => (Number(n) ? text : "\u2013");
  layerTable ??= new SortedTable(byId("layers"), "All layers", [
    { title: "#", numeric: true, key: (r) => r.number, text: (r) => String(r.number) },
    { title: "Layer", key: (r) => r.name, text: (r) => r.name, style: "name" },
    { title: "Operator", key: (r) => r.op, text: (r) => r.op },
    { title: "Output", key: (r) => r.shape, text: (r) => r.shape },
    { title: "Parameters", numeric: true, card: "parameters", key: (r) => r.elements, text: (r) => zero(r.elements, grouped(r.elements)) },
    { title: "Bytes", numeric: true, card: "bytes", key: (r) => r.bytes, text: (r) => zero(r.bytes, formatBytes(r.bytes)) },
    { title: "Kept", numeric: true, card: "kept", key: (r) => r.kept, text: (r) => zero(r.kept, formatBytes(r.kept)) },
    { title: "At the peak", numeric: true, card: "at the peak", key: (r) => r.there, text: (r) => zero(r.there, formatBytes(r.there)) },
  ], byId("filter"));
  const sum = (key) => rows.reduce((total, r) => total + Z(r[key]), Z(0));
  layerTable.show(rows, ["", `${grouped(rows.length)} layers`, "", "", grouped(sum("elements")), formatBytes(sum("bytes")), formatBytes(sum("kept")), formatBytes(sum("there"))]);
}

function showNotes() {
  const notes = [
    `The numbers are bytes that ${DATA.owner} ${DATA.replayed ? "is asked for, before it rounds them into blocks" : "holds"}, predicted to the byte: parameters, buffers, optimizer state, the input and the target, and every tensor that lives during the step, with what kernels take for a moment.`,
    "A training step is zero_grad, forward, loss, backward and the optimizer. Its peak is the most bytes alive at one moment. The interpreter, the libraries' code and fragmentation are not in it.",
    "Each size is a formula in the input's sizes. Your browser evaluates the formulas and adds up the events; only what sealed library kernels hold is looked up, for the sizes the sliders stop at.",
    ...Object.values(DATA.claims).filter((claim) => !claim.decides).map((claim) => `On an accelerator: ${claim.note[0].toLowerCase()}${claim.note.slice(1)}`),
    ...(DATA.replayed ? [DATA.replayed] : []),
    ...DATA.torch.notes,
    "The address of this page after # says what it is set to: copy it to share a setting.",
  ];
  byId("notes").replaceChildren(...notes.map((n) => el("p", {}, n)));
}

const chart = new Chart(byId("chart"), (moment) => now && showMoment(now, moment));
let now = null;

function refresh() {
  setControls();
  const limits = places();
  byId("lede").textContent = describe();
  const found = evaluate(state.choice, state.at);
  const refused = found.refusal !== undefined;
  byId("refusal").hidden = !refused;
  byId("results").hidden = refused;
  now = refused ? null : found;
  document.body.dataset.peak = refused ? "" : String(found.peak);
  if (refused) {
    byId("refusal").textContent = `The network cannot run at these sizes. ${found.refusal}`;
    byId("peak-short").textContent = "\u2013";
    byId("peak-bytes").textContent = "";
    byId("moment").textContent = "";
    byId("verdicts").replaceChildren();
    return;
  }
  const held = aliveAt(found, found.best);
  showPeak(found, limits);
  showComposition(found);
  chart.show(found, limits.map((p) => ({ name: p.kind === "budget" ? "budget" : p.name, bytes: p.tiers.reduce((sum, t) => sum + BigInt(t[1]), 0n) })));
  showAlternatives(found, limits);
  showTensors(found, held);
  showFormula(found, held);
  showLayers(found, held);
}

function change(wanted) {
  Object.assign(state, wanted);
  writeAddress();
  refresh();
}

buildTheme();
buildControls();
byId("definition").replaceChildren(typesetDefinition());
byId("definition").insertAdjacentElement("afterend", el("p", { class: "note" }, "M: the peak. R: what is there before the step. n: how many tensors of size s are alive at moment t. k: what a library's kernel holds at t beside its tensors."));
showNotes();
readAddress();
refresh();
for (const box of document.querySelectorAll(".scroll:not(.tall)")) showScroll(box);
showScroll(document.querySelector(".tall"), (below) => { byId("layers-more").textContent = below ? "\u2193 More layers below: the table scrolls." : ""; });
