// A peak laid into a machine's memories, in the words of memest/machines/claims.py and verdicts.py.
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
  const { words } = DATA.claims[place.kind];
  const said = (outcome, detail) => ({ outcome, word: words[outcome], whole, detail });
  if (rest > 0n) return said("short", `${formatBytes(rest)} more than ${formatBytes(whole)}`);
  if (spilled > 0n) {
    const into = others.filter((u) => u.used > 0n).map((u) => u.name).join(" and ");
    const free = uses.reduce((sum, u) => sum + u.free, 0n);
    return said("spills", `${formatBytes(spilled)} into ${into}, ${first.name} is full (${formatBytes(first.usable)}); ${formatBytes(free)} free`);
  }
  return said("fits", `${formatBytes(first.free)} (${percent(first.free, first.usable)}) free of ${formatBytes(first.usable)} in ${first.name}`);
}

// The worst of several outcomes.
function worst(places, peak) {
  const outcomes = places.map((place) => verdict(place, peak).outcome);
  return ["short", "spills", "fits"].find((o) => outcomes.includes(o)) || "";
}

// "fits", or whose bytes do where one of the places allows no more to be said.
function fitting(places) {
  const unsure = places.map((place) => DATA.claims[place.kind]).find((claim) => !claim.decides);
  return unsure ? unsure.words.fits : "fits";
}
