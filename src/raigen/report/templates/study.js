{% include "explorer/address.js" %}

// Filters of the matrix, and one seed through all models. Both stand in the address.
const part = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll(".heat tbody tr")];
const cards = new Map([...document.querySelectorAll("#attributes article")].map((card) => [card.id, card]));

function applyFilter(now) {
  const wanted = (now.filter || "").toLowerCase().split(/\s+/);
  let left = 0;
  for (const row of rows) {
    const isShown = wanted.every((word) => row.dataset.words.toLowerCase().includes(word)) && (!now.kind || row.dataset.kinds.split(" ").includes(now.kind));
    row.hidden = !isShown;
    cards.get(row.dataset.card).hidden = !isShown;
    left += isShown ? 1 : 0;
  }
  part("filter-count").textContent = left + " of " + rows.length + (rows.length === 1 ? " attribute" : " attributes");
}

// Every image of the page, by prompt and seed: one for each model, and the attributes that a judge saw in it.
const bySeed = new Map();
for (const strips of document.querySelectorAll(".strips")) {
  for (const strip of strips.querySelectorAll(".strip")) {
    for (const image of strip.querySelectorAll("img")) {
      const key = strips.dataset.prompt + "\n" + image.dataset.seed;
      if (!bySeed.has(key)) bySeed.set(key, { prompt: strips.dataset.prompt, seed: image.dataset.seed, isPixels: strips.classList.contains("pixels"), models: new Map() });
      const models = bySeed.get(key).models;
      if (!models.has(strip.dataset.model)) models.set(strip.dataset.model, { image, shows: new Set() });
      if (image.classList.contains("shows")) models.get(strip.dataset.model).shows.add(strips.dataset.label);
    }
  }
}
const seeds = [...bySeed.values()];

function showSeed(now) {
  const prompts = [...new Set(seeds.map((one) => one.prompt))];
  const prompt = prompts.includes(now.prompt) ? now.prompt : prompts[0];
  const ofPrompt = seeds.filter((one) => one.prompt === prompt).sort((a, b) => a.seed - b.seed);
  const chosen = ofPrompt.find((one) => one.seed === now.seed) || ofPrompt[0];
  const options = (values) => values.map((value) => Object.assign(document.createElement("option"), { value, textContent: value }));
  part("seed-prompt").replaceChildren(...options(prompts));
  part("seed-prompt").value = prompt;
  part("seed").replaceChildren(...options(ofPrompt.map((one) => one.seed)));
  part("seed").value = chosen.seed;
  part("seed-images").classList.toggle("pixels", chosen.isPixels);
  part("seed-images").replaceChildren(...[...chosen.models].map(([model, { image, shows }]) => {
    const item = document.createElement("li");
    const large = Object.assign(document.createElement("img"), { className: "base", src: image.src, alt: model + ", seed " + chosen.seed });
    const words = document.createElement("span");
    words.textContent = shows.size ? "shows " + [...shows].join(", ") : "shows none of the attributes that have this seed below";
    item.append(large, Object.assign(document.createElement("b"), { textContent: model }), words);
    return item;
  }));
  const at = ofPrompt.indexOf(chosen);
  part("seed-before").disabled = at === 0;
  part("seed-after").disabled = at === ofPrompt.length - 1;
  part("seed-before").dataset.seed = at > 0 ? ofPrompt[at - 1].seed : "";
  part("seed-after").dataset.seed = at < ofPrompt.length - 1 ? ofPrompt[at + 1].seed : "";
}

for (const node of document.querySelectorAll("[data-needs-script]")) node.hidden = node.id === "one-seed" && seeds.length === 0;
part("study-filter").addEventListener("submit", (event) => event.preventDefault());
part("filter").addEventListener("input", () => goQuietly({ filter: part("filter").value.trim() }));
part("kind").addEventListener("change", () => go({ kind: part("kind").value }));
part("seed-prompt").addEventListener("change", () => go({ prompt: part("seed-prompt").value, seed: "" }));
part("seed").addEventListener("change", () => go({ prompt: part("seed-prompt").value, seed: part("seed").value }));
for (const id of ["seed-before", "seed-after"]) part(id).addEventListener("click", () => go({ prompt: part("seed-prompt").value, seed: part(id).dataset.seed }));
for (const image of document.querySelectorAll(".strips img")) {
  image.addEventListener("click", () => {
    go({ prompt: image.closest(".strips").dataset.prompt, seed: image.dataset.seed });
    part("one-seed").scrollIntoView();
  });
}
onState((now) => {
  if (document.activeElement !== part("filter")) part("filter").value = now.filter || "";
  part("kind").value = now.kind || "";
  applyFilter(now);
  if (seeds.length) showSeed(now);
});
readAddress();
