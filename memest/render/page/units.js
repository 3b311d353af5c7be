// Bytes as people write them, exactly as memest/sizes/units.py does: BigInt arithmetic, no rounding by doubles.
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
const DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

function grouped(n) {
  return String(n).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

function formatBytes(value) {
  let n = BigInt(value);
  const sign = n < 0n ? "-" : "";
  if (n < 0n) n = -n;
  if (n < 1024n) return `${sign}${n} B`;
  const hundredths = (power) => (n * 100n + 1024n ** BigInt(power) / 2n) / 1024n ** BigInt(power);
  let power = Math.min(Math.floor((n.toString(2).length - 1) / 10), BINARY.length - 1);
  if (hundredths(power) >= 102400n && power < BINARY.length - 1) power += 1;
  const h = hundredths(power);
  return `${sign}${grouped(h / 100n)}.${String(h % 100n).padStart(2, "0")} ${BINARY[power]}`;
}

// The bytes in a text such as 24GiB; an Error says what is wrong with it.
function parseBudget(text) {
  const found = /^(\d+)(?:\.(\d+))?\s*([A-Za-z]*)$/.exec(text.trim());
  if (!found || text.length > 60) throw new Error("Not a size. Write a number and a unit, such as 24GiB.");
  const [, whole, fraction = "", unit] = found;
  const amount = fraction ? `${whole}.${fraction}` : whole;
  if (!unit) throw new Error(`A size needs a unit: ${amount}GiB, ${amount}MiB or ${amount}B.`);
  const lower = unit.toLowerCase();
  const binary = BINARY.findIndex((name) => name.toLowerCase() === lower);
  const decimal = DECIMAL.findIndex((name) => name.toLowerCase() === lower);
  if (binary < 0 && decimal < 0) throw new Error(`Unknown unit "${unit}". Use ${BINARY.slice(0, 5).join(", ")}.`);
  const factor = binary >= 0 ? 1024n ** BigInt(binary) : 1000n ** BigInt(decimal);
  const bytes = (BigInt(whole + fraction) * factor) / 10n ** BigInt(fraction.length);
  if (bytes < 1n) throw new Error("A budget of nothing holds nothing. Write a positive size, such as 24GiB.");
  return bytes;
}

function percent(part, whole) {
  return whole ? `${((100 * Number(part)) / Number(whole)).toFixed(1)} %` : "0.0 %";
}
