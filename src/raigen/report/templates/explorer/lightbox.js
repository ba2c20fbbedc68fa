// The lightbox: one image, large, with what is known about it. "image=17" in the address opens it.
function lightboxOf(neighbors) {
  const part = (id) => document.getElementById(id);
  const box = part("lightbox");
  const canvas = part("lightbox-image");
  let shown = null;
  let overlays = [];

  // The largest picture of an image on this page: that of a card, or the one in the atlas.
  function source(image) {
    const found = document.querySelector('img.base[data-image="' + image + '"]');
    return found && found.complete && found.naturalWidth > explorer.width ? found : null;
  }

  function draw() {
    const card = source(shown);
    const [w, h] = card ? [card.naturalWidth, card.naturalHeight] : [explorer.width, explorer.height];
    const scale = 448 / Math.max(w, h);
    [canvas.width, canvas.height] = [Math.round(w * scale), Math.round(h * scale)];
    const context = canvas.getContext("2d");
    if (card) {
      context.imageSmoothingEnabled = !explorer.pixels;
      context.drawImage(card, 0, 0, canvas.width, canvas.height);
    } else drawImageOf(context, shown, 0, 0, canvas.width, canvas.height);
    const chosen = overlays[Number(part("lightbox-heat").value)];
    context.imageSmoothingEnabled = true;
    context.globalAlpha = 0.7;
    if (chosen) context.drawImage(chosen.overlay, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    canvas.setAttribute("aria-label", "image of seed " + seedOf(shown));
  }

  // The heatmaps of this image that the page holds: one for each finding among whose strongest images it is.
  function heatmapsOf(image) {
    return [...document.querySelectorAll('article img.base[data-image="' + image + '"] + .overlay')].map((overlay) => ({
      overlay, title: findingOf(Number(overlay.closest("article").dataset.neuron)).title,
    }));
  }

  function show(image) {
    shown = image;
    overlays = heatmapsOf(image);
    part("lightbox-title").textContent = "Seed " + seedOf(image);
    const heat = part("lightbox-heat");
    heat.replaceChildren(element("option", { value: "none" }, "off"), ...overlays.map((one, at) => element("option", { value: String(at) }, one.title)));
    part("lightbox-heat-row").hidden = !overlays.length;
    part("lightbox-black").hidden = !isBlack().has(image);
    const found = findingsIn(image);
    part("lightbox-findings").replaceChildren(...found.map(({ finding, code }) => {
      const button = element("button", { type: "button" }, finding.rank + ". " + finding.title + ", activation " + number(code, 2));
      button.dataset.neuron = finding.neuron;
      return element("li", {}, button);
    }));
    part("lightbox-none").hidden = found.length > 0;
    part("lightbox-command").value = commandFor(image);
    part("lightbox-command-row").hidden = !explorer.command;
    part("lightbox-copied").textContent = "";
    part("lightbox-file").setAttribute("href", "images/" + String(image).padStart(6, "0") + ".png");
    const like = orderByLikeness(image).items.filter((item) => item.image !== image).slice(0, 8);
    part("lightbox-like").replaceChildren(...like.map((item) => {
      const button = element("button", { type: "button", "aria-label": "image of seed " + seedOf(item.image) + ", " + item.text }, smallImage(item.image, 64), element("span", {}, number(item.value, 2)));
      button.dataset.open = item.image;
      return element("li", {}, button);
    }));
    draw();
    if (!box.open) box.showModal();
    if (!box.contains(document.activeElement)) part("lightbox-next").focus(); // the pressed image has gone
  }

  function step(by) {
    const images = neighbors().map((item) => item.image);
    const at = images.indexOf(shown);
    const next = images[at + by];
    if (next !== undefined) go({ image: String(next) });
  }

  onState((now) => {
    const image = now.image === undefined ? NaN : Number(now.image);
    if (Number.isInteger(image) && image >= 0 && image < explorer.n) show(image);
    else if (box.open) box.close();
  });
  box.addEventListener("close", () => { if (state.image !== undefined) go({ image: "" }); });
  box.addEventListener("click", (event) => {
    if (event.target === box) box.close();
    const neuron = event.target.closest("button[data-neuron]");
    if (neuron) go({ image: "", neuron: neuron.dataset.neuron, like: "", word: "", area: "" });
    const other = event.target.closest("button[data-open]");
    if (other) go({ image: other.dataset.open });
  });
  box.addEventListener("keydown", (event) => {
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "h" && overlays.length) {
      const heat = part("lightbox-heat");
      heat.value = heat.value === "none" ? "0" : "none";
      draw();
    } else return;
    event.preventDefault();
  });
  part("lightbox-heat").addEventListener("change", draw);
  part("lightbox-close").addEventListener("click", () => box.close());
  part("lightbox-previous").addEventListener("click", () => step(-1));
  part("lightbox-next").addEventListener("click", () => step(1));
  part("lightbox-more").addEventListener("click", () => go({ image: "", like: String(shown), neuron: "", word: "", area: "" }));
  part("lightbox-copy").addEventListener("click", async () => {
    part("lightbox-command").select();
    try {
      await navigator.clipboard.writeText(part("lightbox-command").value);
      part("lightbox-copied").textContent = "copied";
    } catch {
      part("lightbox-copied").textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C to copy";
    }
  });
  // An image of a card opens here, too.
  const open = (target) => {
    const image = target.closest("img.base[data-image]") || (target.closest(".image") || target).querySelector?.("img.base[data-image]");
    if (image) go({ image: image.dataset.image });
    return Boolean(image);
  };
  for (const card of document.querySelectorAll("#attributes article")) {
    card.addEventListener("click", (event) => { if (event.target.closest(".image")) open(event.target); });
    card.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.matches(".image")) open(event.target);
    });
  }
}
