// The explorer: findings, map and gallery show one order of images, which the address names.
const PAGE = 60; // images of the gallery that are drawn at once

function explore() {
  const part = (id) => document.getElementById(id);
  const section = part("explore");
  const gallery = part("gallery");
  const more = part("gallery-more");
  let order = null;
  let items = [];
  let nShown = 0;
  let lit = null; // of the chosen order and part of the map
  for (const node of document.querySelectorAll("[data-needs-script]:not(.dial)")) node.hidden = false;

  const map = mapOn(part("map"), {
    area: (area) => go({ area }),
    open: (image) => go({ image }),
    pointed: (image) => { part("map-says").textContent = image === null ? "" : "seed " + seedOf(image) + saysOf(image); },
  });

  // Which findings fire clearly in an image, the strongest first.
  function saysOf(image) {
    const names = findingsIn(image).map(({ finding }) => finding.title);
    return names.length ? ": " + names.slice(0, 3).join(", ") : "";
  }

  function litOf(chosen) {
    return chosen.lit ? new Set(chosen.items.filter(chosen.lit).map((item) => item.image)) : null;
  }

  function showMore() {
    const shown = items.slice(nShown, nShown + PAGE).map(({ image, text }) => {
      const open = element("button", { type: "button", "aria-label": "image of seed " + seedOf(image) + ", " + text }, smallImage(image, 96), element("span", {}, text));
      open.dataset.open = image;
      return element("li", {}, open);
    });
    gallery.append(...shown);
    nShown += shown.length;
    more.hidden = nShown >= items.length;
    part("gallery-count").textContent = nShown.toLocaleString("en") + " of " + items.length.toLocaleString("en") + (items.length === 1 ? " image" : " images");
  }

  function show(now, before) {
    for (const button of section.querySelectorAll("[data-neuron]")) button.setAttribute("aria-pressed", String(button.dataset.neuron === now.neuron));
    if (before && ["neuron", "like", "word", "area"].every((key) => now[key] === before[key]) && order) return;
    order = orderOf(now);
    const area = areaOf(now.area);
    items = area ? order.items.filter((item) => isWithin(item.image, area)) : order.items;
    part("gallery-title").textContent = order.title + (area ? ", in the chosen part of the map" : "");
    part("gallery-says").textContent = order.says + (area ? " " + within(items) : "");
    part("gallery-card").hidden = !order.link;
    if (order.link) part("gallery-card").setAttribute("href", order.link);
    part("gallery-all").hidden = !(now.neuron || now.like || now.word);
    part("gallery-area").hidden = !area;
    part("gallery-neurons").replaceChildren(...(order.neurons || []).map((one) => chip(one.neuron, one.title + ", " + number(one.value, 1) + " sd")));
    part("gallery-neurons").hidden = !order.neurons;
    part("neuron").value = /^\d+$/.test(now.neuron) ? now.neuron : "";
    if (document.activeElement !== part("word")) part("word").value = now.word || "";
    gallery.replaceChildren();
    nShown = 0;
    showMore();
    lit = litOf({ items, lit: order.lit || (area && (() => true)) });
    map.light(lit);
  }

  // What stands out in a part of the map: the findings that fire clearly in more of these images than of all.
  function within(chosen) {
    const images = new Set(chosen.map((item) => item.image));
    const shares = explorer.findings.map((finding) => {
      const clear = clearlyIn(finding);
      return { title: finding.title, here: clear.filter((image) => images.has(image)).length, all: clear.length };
    });
    const told = shares.filter((one) => one.here >= 2 && one.here / images.size > (2 * one.all) / explorer.n).sort((a, b) => b.here - a.here);
    return told.length ? "More often here than elsewhere: " + told.slice(0, 4).map((one) => one.title + " (" + one.here + " of " + one.all + ")").join(", ") + "." : "";
  }

  function chip(neuron, text) {
    const button = element("button", { type: "button", "aria-pressed": "false" }, text);
    button.dataset.neuron = neuron;
    return button;
  }

  section.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-neuron]");
    if (button) go({ neuron: button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.neuron, like: "", word: "" });
    const image = event.target.closest("button[data-open]");
    if (image) go({ image: image.dataset.open });
  });
  // Pointing at a finding lights its images; leaving it lights what is chosen.
  for (const [kind, isOver] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
    section.addEventListener(kind, (event) => {
      const button = event.target.closest("button[data-neuron]");
      if (button) map.light(isOver ? litOf(orderOf({ neuron: button.dataset.neuron })) : lit);
    });
  }
  part("explore-form").addEventListener("submit", (event) => event.preventDefault());
  part("word").addEventListener("input", () => goQuietly({ word: part("word").value.trim(), neuron: "", like: "" }));
  part("neuron").addEventListener("change", () => go({ neuron: part("neuron").value.trim(), like: "", word: "" }));
  part("neuron-next").addEventListener("click", () => {
    const all = others().neurons;
    go({ neuron: String(all[((order.step === undefined ? -1 : order.step) + 1) % all.length]), like: "", word: "" });
  });
  part("gallery-all").addEventListener("click", () => go({ neuron: "", like: "", word: "" }));
  part("gallery-area").addEventListener("click", () => go({ area: "" }));
  more.addEventListener("click", showMore);
  part("map-in").addEventListener("click", () => map.zoom(1.6));
  part("map-out").addEventListener("click", () => map.zoom(1 / 1.6));
  part("map-view").addEventListener("click", () => map.choose());
  part("findings").append(...explorer.findings.map((finding) => chip(finding.neuron, finding.rank + ". " + finding.title)));
  if (explorer.words) part("words").append(...explorer.words.phrases.map((phrase) => element("option", { value: phrase })));
  onState(show);
  return { map, items: () => items };
}

// The images in which a finding fires clearly.
function clearlyIn(finding) {
  if (!finding.clear) {
    finding.clear = [];
    codesOf(finding).forEach((code, image) => { if (code && code >= finding.clearly) finding.clear.push(image); });
  }
  return finding.clear;
}

function findingsIn(image) {
  return explorer.findings
    .filter((finding) => clearlyIn(finding).includes(image))
    .map((finding) => ({ finding, code: (codesOf(finding)[image] / 255) * finding.peak, share: codesOf(finding)[image] / 255 }))
    .sort((a, b) => b.share - a.share);
}
