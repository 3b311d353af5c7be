// The step at a setting: formulas evaluated, events replayed, the highest running sum kept. Nothing here is looked up but what sealed
// kernels hold. Numbers are doubles where no sum can reach 2**53, else BigInts (Z); the data says which.
const Z = DATA.big ? BigInt : Number;
const CATEGORY = Object.fromEntries(DATA.categories.map((name, i) => [name, i]));
const STACK = ["parameter", "buffer", "optimizer_state", "input", "gradient", "activation", "temporary", "workspace"].map((c) => CATEGORY[c]);

for (const kernel of DATA.kernels) {
  const bytes = Uint8Array.from(atob(kernel.codes[1]), (c) => c.charCodeAt(0));
  kernel.codes = kernel.codes[0] === 1 ? bytes : new Uint16Array(bytes.buffer);
  kernel.entries = kernel.entries.map(Z);
}
for (const form of DATA.forms) form.forEach((n, i) => { if (i === 0 || i % 2) form[i] = Z(n); });

function settingOf(at) {
  return DATA.axes.reduce((number, axis, i) => number * axis.values.length + at[i], 0);
}

function sizesOf(at) {
  return DATA.axes.map((axis, i) => axis.values[at[i]]);
}

// The program of a choice: its events flattened once. where[i] is the run an event lies in.
const flattened = new Map();
function programOf(number) {
  if (flattened.has(number)) return flattened.get(number);
  const program = DATA.programs[number];
  const segments = program.segments.map((s) => DATA.segments[s]);
  const moves = segments.flatMap((s) => s.moves);
  const made = segments.flatMap((s) => s.made);
  const runs = [];
  const where = new Int32Array(moves.length);
  let event = 0;
  for (const s of segments) {
    for (let i = 0; i < s.runs.length; i += 4) {
      where.fill(runs.length, event, event + s.runs[i + 3]);
      event += s.runs[i + 3];
      runs.push({ phase: DATA.strings[s.runs[i]], layer: DATA.strings[s.runs[i + 1]], op: DATA.strings[s.runs[i + 2]] });
    }
  }
  const born = [];
  moves.forEach((move, i) => { if (move === 0) born.push(i); });
  const found = { moves, made, runs, where, born, residents: program.residents, layers: DATA.layers[program.layers], conditions: program.conditions };
  flattened.set(number, found);
  return found;
}

function formsAt(at) {
  const terms = termsOf(...sizesOf(at).map(Z));
  const forms = DATA.forms.map((form) => {
    let sum = form[0];
    for (let i = 1; i < form.length; i += 2) sum += form[i] * terms[form[i + 1]];
    return sum;
  });
  return { terms, forms };
}

// What an allocation adds to which category: [category, bytes, allocation it really is]. A kernel's results are the allocations after it.
function sharesOf(program, number, forms, setting) {
  const size = program.made[3 * number];
  const category = program.made[3 * number + 1];
  if (size >= 0) return [[category, forms[size], number]];
  const kernel = DATA.kernels[-1 - size];
  const entry = 3 * kernel.codes[setting];
  let rest = kernel.entries[entry] - kernel.entries[entry + 2];
  const shares = [];
  let bits = Number(kernel.entries[entry + 1]);
  for (let follower = number + 1; bits; follower += 1, bits >>= 1) {
    if (bits & 1) {
      const bytes = forms[program.made[3 * follower]];
      shares.push([program.made[3 * follower + 1], bytes, follower]);
      rest -= bytes;
    }
  }
  shares.push([CATEGORY.temporary, kernel.entries[entry + 2], number], [category, rest, number]);
  return shares;
}

// The whole step: totals after each moment (0: before the step), the same by category, the first highest moment.
function evaluate(choice, at) {
  const setting = settingOf(at);
  const number = DATA.choices[choice].programs[setting];
  if (number < 0) return { refusal: DATA.choices[choice].refusals[-1 - number] };
  const program = programOf(number);
  const { terms, forms } = formsAt(at);
  const n = program.moves.length;
  const alive = DATA.categories.map(() => Z(0));
  const history = DATA.categories.map(() => new (DATA.big ? Array : Float64Array)(n + 1));
  const totals = new (DATA.big ? Array : Float64Array)(n + 1);
  let total = Z(0);
  for (const [size, category] of program.residents) {
    alive[category] += forms[size];
    total += forms[size];
  }
  const resident = total;
  let best = 0;
  let made = 0;
  alive.forEach((bytes, c) => { history[c][0] = bytes; });
  totals[0] = total;
  for (let i = 0; i < n; i += 1) {
    const move = program.moves[i];
    const shares = sharesOf(program, move === 0 ? made : move - 1, forms, setting);
    if (move === 0) made += 1;
    for (const [category, bytes] of shares) {
      alive[category] += move === 0 ? bytes : -bytes;
      total += move === 0 ? bytes : -bytes;
    }
    for (let c = 0; c < alive.length; c += 1) history[c][i + 1] = alive[c];
    totals[i + 1] = total;
    if (total > totals[best]) best = i + 1;
  }
  return { program, setting, terms, forms, resident, totals, history, best, peak: totals[best] };
}

// The peak alone, for comparisons.
function peakOf(choice, at) {
  const found = evaluate(choice, at);
  return found.refusal === undefined ? found.peak : null;
}

// Every tensor alive at a moment: bytes, category, owner, operator, reason; a size form where it has one.
function aliveAt(found, moment) {
  const { program, forms, setting } = found;
  const alive = new Set();
  let made = 0;
  for (let i = 0; i < moment; i += 1) {
    const move = program.moves[i];
    if (move === 0) alive.add(made++);
    else alive.delete(move - 1);
  }
  const held = program.residents.map(([form, category, owner]) => ({ bytes: forms[form], category, layer: DATA.strings[owner], op: "", reason: "", form }));
  for (const number of alive) {
    const size = program.made[3 * number];
    const run = program.runs[program.where[program.born[number]]];
    for (const [category, bytes, really] of sharesOf(program, number, forms, setting)) {
      const form = program.made[3 * really];
      const reason = DATA.strings[program.made[3 * really + 2]];
      held.push({ bytes, category, layer: run.layer, op: run.op, reason, form: form >= 0 ? form : null, inKernel: size < 0 });
    }
  }
  return held.filter((h) => h.bytes > 0).sort((a, b) => (a.bytes < b.bytes ? 1 : a.bytes > b.bytes ? -1 : 0));
}

function reasonOf(h, choice) {
  if (h.reason) return h.reason;
  const name = DATA.categories[h.category];
  const plain = {
    parameter: "the network owns it",
    buffer: "the network owns it",
    input: "the caller holds it",
    optimizer_state: `state of ${choice.optimizer}`,
    gradient: "gradient on its way back",
    workspace: `scratch inside ${h.op}`,
  };
  return plain[name] || (h.inKernel && h.form === null ? `copies inside ${h.op}` : `made by ${h.op}, not dropped yet`);
}
