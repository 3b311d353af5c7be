// Formulas as MathML, built node by node from trees: a number, a symbol's name, or [operator, left, right].
const MATHML = "http://www.w3.org/1998/Math/MathML";

function m(name, ...children) {
  const node = document.createElementNS(MATHML, name);
  for (const child of children) node.append(child);
  return node;
}

const mo = (text) => m("mo", text);
const mn = (number) => m("mn", grouped(number));
const row = (...nodes) => m("mrow", ...nodes);

function mi(name) {
  const parts = /^([A-Za-z]+)_?(\d+)$/.exec(name);
  return parts ? m("msub", m("mi", parts[1]), m("mn", parts[2])) : m("mi", name);
}

function factorsOf(tree) {
  return Array.isArray(tree) && tree[0] === "*" ? [...factorsOf(tree[1]), ...factorsOf(tree[2])] : [tree];
}

function firstSymbol(tree) {
  if (typeof tree === "string") return DATA.axes.findIndex((axis) => axis.symbol === tree);
  if (!Array.isArray(tree)) return -1;
  return Math.max(-1, ...tree.slice(1).map(firstSymbol));
}

function sign(text, space) {
  const node = mo(text);
  node.setAttribute("lspace", space);
  node.setAttribute("rspace", space);
  return node;
}

// What stands between factors: nothing but a thin gap.
function gap() {
  const node = m("mspace");
  node.setAttribute("width", "0.18em");
  return node;
}

// rank: 0 alone, 1 in a sum, 2 in a product.
function typeset(tree, rank = 0) {
  if (typeof tree === "number" || typeof tree === "bigint") return mn(tree);
  if (typeof tree === "string") return mi(tree);
  const [op, a, b] = tree;
  if (op === "//") return row(sign("\u230a", "0"), typeset(a, 2), sign("/", "0.05em"), typeset(b, 2), sign("\u230b", "0"));
  if (op === "*") {
    const factors = factorsOf(tree).map((f, i) => [f, i]).sort(([f, i], [g, j]) => firstSymbol(f) - firstSymbol(g) || i - j);
    return row(...factors.flatMap(([f], i) => (i ? [gap(), typeset(f, 2)] : [typeset(f, 2)])));
  }
  if (op === "max" || op === "min") return row(mo(op), mo("("), typeset(a), mo(","), typeset(b), mo(")"));
  const between = op === "%" ? "mod" : op === "-" ? "\u2212" : "+";
  const sum = row(typeset(a, 1), mo(between), typeset(b, op === "+" ? 1 : 2));
  return rank === 2 || (rank === 1 && op === "%") ? row(mo("("), sum, mo(")")) : sum;
}

function math(...nodes) {
  return m("math", row(...nodes));
}

// coefficient x term (null: the constant itself).
function typesetPart(coefficient, term) {
  if (term === null) return math(mn(coefficient));
  const shown = typeset(DATA.terms[term], 2);
  return String(coefficient) === "1" ? math(shown) : math(mn(coefficient), gap(), shown);
}

function typesetDefinition() {
  const symbols = DATA.axes.flatMap((axis, i) => (i ? [mo(","), mi(axis.symbol)] : [mi(axis.symbol)]));
  const sum = row(m("munder", mo("\u2211"), m("mi", "i")), m("msub", m("mi", "n"), row(m("mi", "t"), m("mi", "i"))), gap(), m("msub", m("mi", "s"), m("mi", "i")));
  const left = symbols.length ? [m("mi", "M"), mo("("), ...symbols, mo(")")] : [m("mi", "M")];
  const whole = math(...left, mo("="), m("mi", "R"), mo("+"), m("munder", mo("max"), m("mi", "t")), row(mo("("), sum, mo("+"), m("msub", m("mi", "k"), m("mi", "t")), mo(")")));
  whole.setAttribute("displaystyle", "true");
  return whole;
}
