// The step as an SVG: categories stacked over events, phases shaded, the peak and the limits marked. It draws what it is given and says
// which moment is pointed at.
const SVG = "http://www.w3.org/2000/svg";

function s(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Moments that draw the totals in so many columns: of each its first highest and first lowest; the peak is always among them.
function outline(totals, columns) {
  const n = totals.length;
  if (n <= 2 * columns) return Array.from({ length: n }, (_, i) => i);
  const chosen = [];
  for (let c = 0; c < columns; c += 1) {
    let high = Math.floor((c * n) / columns);
    let low = high;
    for (let i = high; i < Math.floor(((c + 1) * n) / columns); i += 1) {
      if (totals[i] > totals[high]) high = i;
      if (totals[i] < totals[low]) low = i;
    }
    chosen.push(...new Set([Math.min(high, low), Math.max(high, low)]));
  }
  return chosen;
}

// Round numbers of bytes from 0: at most six, in steps of 1, 2, 4, 8, ... or 1024 times that.
function ticksTo(most) {
  let step = 1;
  while (most / step > 5.5) step *= 2;
  const ticks = [];
  for (let t = 0; t <= most; t += step) ticks.push(t);
  return ticks;
}

function shortBytes(n) {
  let power = 0;
  while (n >= 1024 && power < BINARY.length - 1) { n /= 1024; power += 1; }
  return `${+n.toFixed(2)} ${BINARY[power]}`;
}

class Chart {
  constructor(box, onMoment) {
    this.box = box;
    this.onMoment = onMoment;
    this.found = null;
    this.moment = 0;
    box.addEventListener("pointermove", (e) => this.pointed(e));
    box.addEventListener("pointerdown", (e) => this.pointed(e));
    box.addEventListener("pointerleave", () => this.go(this.pinned));
    box.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.found && this.draw()).observe(box);
  }

  show(found, limits) {
    this.found = found;
    this.limits = limits;
    this.pinned = found.best;
    this.draw();
    this.go(found.best);
  }

  draw() {
    const { found, limits } = this;
    const width = Math.max(this.box.clientWidth, 240);
    const height = Math.max(this.box.clientHeight, 160);
    const n = found.totals.length;
    const peak = Number(found.peak);
    const near = limits.map((l) => Number(l.bytes)).filter((b) => b <= 2 * peak);
    const top = Math.max(peak * 1.1, ...near.map((b) => b * 1.06), 1);
    const box = { left: width < 480 ? 56 : 68, right: width - 14, top: 30, bottom: height - 26 };
    const x = (i) => box.left + ((box.right - box.left) * i) / n;
    const y = (b) => box.bottom - ((box.bottom - box.top) * Number(b)) / top;
    this.x = x;
    this.frame = box;
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    this.phases(svg, x, box);
    for (const t of ticksTo(top)) {
      svg.append(s("line", { class: "grid", x1: box.left, x2: box.right, y1: y(t), y2: y(t) }));
      svg.append(s("text", { x: box.left - 8, y: y(t) + 4, "text-anchor": "end" }, shortBytes(t)));
    }
    this.areas(svg, x, y, n, Math.round(box.right - box.left));
    for (const limit of limits) {
      if (Number(limit.bytes) > top) continue;
      svg.append(s("line", { class: "limit", x1: box.left, x2: box.right, y1: y(limit.bytes), y2: y(limit.bytes) }));
      svg.append(s("text", { class: "limit-name", x: box.right - 4, y: y(limit.bytes) - 5, "text-anchor": "end" }, limit.name));
    }
    const px = x(found.best + 0.5);
    svg.append(s("line", { class: "peak-line", x1: px, x2: px, y1: y(found.peak), y2: box.bottom }));
    svg.append(s("circle", { class: "peak-dot", cx: px, cy: y(found.peak), r: 4.5 }));
    const end = px > (box.left + box.right) / 2;
    svg.append(s("text", { class: "peak-name", x: px + (end ? -9 : 9), y: y(found.peak) + 1, "text-anchor": end ? "end" : "start" }, `peak ${formatBytes(found.peak)}`));
    svg.append(s("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, `${grouped(n - 1)} allocations and releases, in order`));
    this.cursor = s("line", { class: "cursor", y1: box.top, y2: box.bottom });
    svg.append(this.cursor);
    this.box.replaceChildren(svg);
    this.place();
  }

  phases(svg, x, box) {
    const { program } = this.found;
    let start = 0;
    let shaded = false;
    for (let i = 1; i <= program.where.length; i += 1) {
      const phase = program.runs[program.where[start]].phase;
      if (i < program.where.length && program.runs[program.where[i]].phase === phase) continue;
      const left = x(start + 1);
      const right = x(i + 1);
      if (shaded) svg.append(s("rect", { class: "phase", x: left, y: box.top - 22, width: Math.max(right - left, 0), height: box.bottom - box.top + 22 }));
      if (right - left > 7 * phase.length) svg.append(s("text", { class: "phase-name", x: left + 5, y: box.top - 9 }, phase.replace("_", " ")));
      shaded = !shaded;
      start = i;
    }
  }

  areas(svg, x, y, n, columns) {
    const { history, totals } = this.found;
    const moments = outline(totals, columns);
    const base = moments.map(() => 0);
    for (const category of STACK) {
      const values = history[category];
      if (!moments.some((i) => values[i] > 0)) continue;
      const over = [];
      const under = [];
      moments.forEach((moment, k) => {
        const left = x(moment).toFixed(1);
        const right = x(k + 1 < moments.length ? moments[k + 1] : n).toFixed(1);
        const low = y(base[k]).toFixed(1);
        base[k] += Number(values[moment]);
        const high = y(base[k]).toFixed(1);
        over.push(`${left} ${high} ${right} ${high}`);
        under.push(`${right} ${low} ${left} ${low}`);
      });
      const name = DATA.categories[category];
      const area = s("path", { class: "area", d: `M${over.join(" ")} ${under.reverse().join(" ")}Z` });
      area.style.fill = `var(--c-${name})`;
      svg.append(area);
    }
  }

  go(moment) {
    this.moment = Math.max(0, Math.min(moment, this.found.totals.length - 1));
    this.place();
    this.onMoment(this.moment);
  }

  place() {
    const at = this.x(this.moment + 0.5);
    this.cursor.setAttribute("x1", at);
    this.cursor.setAttribute("x2", at);
  }

  pointed(e) {
    if (!this.found) return;
    const across = e.clientX - this.box.getBoundingClientRect().left;
    const share = (across - this.frame.left) / (this.frame.right - this.frame.left);
    this.go(Math.floor(share * this.found.totals.length));
    if (e.type === "pointerdown") this.pinned = this.moment;
  }

  key(e) {
    if (!this.found || e.ctrlKey || e.metaKey || e.altKey) return;
    const last = this.found.totals.length - 1;
    const page = Math.max(10, Math.round(last / 40));
    const to = {
      ArrowRight: this.moment + 1, ArrowUp: this.moment + 1, ArrowLeft: this.moment - 1, ArrowDown: this.moment - 1,
      PageUp: this.moment + page, PageDown: this.moment - page, Home: 0, End: last, p: this.found.best, P: this.found.best,
    }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.go(to);
    this.pinned = this.moment;
  }
}
