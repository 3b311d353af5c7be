// A peak laid into a machine's memories, in the words of memest/hardware/verdicts.py.
function verdict(place, peak) {
  let rest = BigInt(peak);
  const uses = place.tiers.map(([name, usable]) => {
    const used = rest < BigInt(usable) ? rest : BigInt(usable);
    rest -= used;
    return { name, usable: BigInt(usable), used, free: BigInt(usable) - used };
  });
  const whole = uses.reduce((sum, u) => sum + u.usable, 0n);
  const [first, ...others] = uses;
  const spilled = others.reduce((sum, u) => sum + u.used, 0n);
  if (rest > 0n) return { outcome: "short", word: "does not fit", whole, detail: `${formatBytes(rest)} more than ${formatBytes(whole)}` };
  if (spilled > 0n) {
    const into = others.filter((u) => u.used > 0n).map((u) => u.name).join(" and ");
    const free = uses.reduce((sum, u) => sum + u.free, 0n);
    return { outcome: "spills", word: "spills", whole, detail: `${formatBytes(spilled)} into ${into}, ${first.name} is full (${formatBytes(first.usable)}); ${formatBytes(free)} free` };
  }
  return { outcome: "fits", word: "fits", whole, detail: `${formatBytes(first.free)} (${percent(first.free, first.usable)}) free of ${formatBytes(first.usable)} in ${first.name}` };
}

// The worst of several outcomes.
function worst(places, peak) {
  const outcomes = places.map((place) => verdict(place, peak).outcome);
  return ["short", "spills", "fits"].find((o) => outcomes.includes(o)) || "";
}
