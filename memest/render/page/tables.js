// Small builders of the page's parts: elements, bars in lines, tables. Texts from data are only ever text nodes.
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null));
  return node;
}

const byId = (id) => document.getElementById(id);
const words = (name) => name.replace(/_/g, " ");

function swatch(category) {
  const node = el("i", { class: "swatch" });
  node.style.background = `var(--c-${DATA.categories[category]})`;
  return node;
}

function filled(share) {
  const node = el("i");
  node.style.width = `${(100 * Math.max(0, Math.min(1, share))).toFixed(2)}%`;
  return node;
}

// One line an alternative: its name (a button that goes there), a bar, the peak. A mark shows the first limit.
function lines(box, rows, places, label) {
  const most = Math.max(1, ...rows.map((r) => Number(r.peak ?? 0)));
  const limit = places.length ? places[0].tiers.reduce((sum, t) => sum + Number(t[1]), 0) : null;
  const body = rows.map((r) => {
    const track = el("div", { class: "track" });
    if (r.peak !== null) track.append(filled(Number(r.peak) / most));
    if (limit !== null && limit <= most) {
      const mark = el("i", { class: "mark" });
      mark.style.inset = `0 auto 0 ${(100 * limit / most).toFixed(2)}%`;
      track.append(mark);
    }
    const outcome = r.peak === null ? "" : worst(places, r.peak);
    const said = { fits: ", fits", spills: ", spills", short: ", does not fit" }[outcome] || "";
    return el("tr", { class: `${outcome} ${r.here ? "here" : ""}` },
      el("th", { scope: "row" }, el("button", { type: "button", class: "go", "aria-current": r.here ? "true" : false, onclick: r.go }, r.name)),
      el("td", {}, track),
      el("td", { class: "amount" }, r.peak === null ? "cannot run" : formatBytes(r.peak), el("span", { class: "unseen" }, said)));
  });
  keepingFocus(box, () => box.replaceChildren(el("table", { class: "lines" }, el("caption", { class: "unseen" }, label), el("tbody", {}, ...body))));
}

// A redraw throws buttons away; the focus stays on the one in the same place.
function keepingFocus(box, redraw) {
  const at = [...box.querySelectorAll("button")].indexOf(document.activeElement);
  redraw();
  if (at >= 0) box.querySelectorAll("button")[at]?.focus();
}

// columns: [title, numeric, class, what a card calls it]. rows: arrays of texts or nodes.
function table(node, caption, columns, rows, foot = null) {
  const cell = (kind) => (value, i) => el(kind, { class: columns[i][1] ? "n" : columns[i][2] || "", role: "cell", "data-of": columns[i][3] || null }, value);
  const head = el("tr", {}, ...columns.map(([title, numeric]) => el("th", { scope: "col", class: numeric ? "n" : "" }, title)));
  node.replaceChildren(
    el("caption", { class: "unseen" }, caption), el("thead", {}, head),
    el("tbody", { role: "rowgroup" }, ...rows.map((r) => el("tr", { role: "row" }, ...r.map(cell("td"))))),
    ...(foot ? [el("tfoot", { role: "rowgroup" }, el("tr", { role: "row" }, ...foot.map(cell("td"))))] : []));
  node.setAttribute("role", "table");  // said, because a card is no table's row to a browser
}

// A box that scrolls shows on which sides there is more; `said` is told whether there is below.
function showScroll(box, said = () => {}) {
  const look = () => {
    const below = box.scrollTop + box.clientHeight < box.scrollHeight - 2;
    box.parentElement.classList.toggle("below", below);
    box.parentElement.classList.toggle("right", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    said(below);
  };
  box.addEventListener("scroll", look);
  const watch = new ResizeObserver(look);
  watch.observe(box);
  for (const inside of box.children) watch.observe(inside);
}

// A table whose columns sort: click or Enter on a title, again for the other direction.
class SortedTable {
  constructor(node, caption, columns, filter) {
    this.node = node;
    this.columns = columns;
    this.filter = filter;
    this.by = 0;
    this.up = true;
    this.titles = columns.map((column, i) => el("th", { scope: "col", class: column.numeric ? "n" : "" }, el("button", { type: "button", onclick: () => this.sort(i) }, column.title)));
    this.body = el("tbody", { role: "rowgroup" });
    this.foot = el("tfoot", { role: "rowgroup" });
    node.setAttribute("role", "table");
    node.replaceChildren(el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, ...this.titles)), this.body, this.foot);
    filter.addEventListener("input", () => this.draw());
  }

  show(rows, foot) {
    this.rows = rows;
    this.foot.replaceChildren(el("tr", { role: "row" }, ...foot.map((value, i) => el("td", { class: this.columns[i].numeric ? "n" : "", role: "cell", "data-of": this.columns[i].card || null }, value))));
    this.draw();
  }

  sort(column) {
    this.up = this.by === column ? !this.up : !this.columns[column].numeric || column === 0;
    this.by = column;
    this.draw();
  }

  draw() {
    const key = this.columns[this.by].key;
    const wanted = this.filter.value.trim().toLowerCase();
    const shown = this.rows.filter((r) => !wanted || `${r.name} ${r.op}`.toLowerCase().includes(wanted));
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (this.up ? 1 : -1);
    shown.sort((a, b) => order(key(a), key(b)) || a.number - b.number);
    this.titles.forEach((title, i) => {
      if (i === this.by) title.setAttribute("aria-sort", this.up ? "ascending" : "descending");
      else title.removeAttribute("aria-sort");
    });
    this.body.replaceChildren(...shown.map((r) => el("tr", { role: "row" }, ...this.columns.map((c) => el("td", { class: c.numeric ? "n" : c.style || "", role: "cell", "data-of": c.card || null }, c.text(r))))));
    if (!shown.length) this.body.append(el("tr", {}, el("td", { colspan: this.columns.length }, "No layer has this in its name or operator.")));
  }
}
