// The strips of an amplified attribute under a slider: the same seeds at one strength, large. An image flips to its
// unsteered twin and back.
for (const dial of document.querySelectorAll(".dial")) {
  const strips = [...dial.nextElementSibling.querySelectorAll(".strip")].map((strip) => {
    const [method, strength] = strip.dataset.name.split(/, (?=[^,]*$)/);
    return { method, strength, images: [...strip.querySelectorAll("img")] };
  });
  const [twins, steered] = [strips[0], strips.slice(1)];
  const [method, slider, says, flip, row] = ["select", "input", "output", ".flip", ".row"].map((what) => dial.querySelector(what));
  const methods = [...new Set(steered.map((strip) => strip.method))];
  if (!methods.length) continue;
  dial.hidden = false;
  const ofMethod = () => steered.filter((strip) => strip.method === method.value);

  function show() {
    const chosen = ofMethod();
    slider.max = chosen.length;
    const at = Number(slider.value);
    const strip = at === 0 ? twins : chosen[at - 1];
    const areTwins = flip.getAttribute("aria-pressed") === "true";
    says.textContent = at === 0 ? "unsteered" : strip.strength;
    slider.setAttribute("aria-valuetext", says.textContent);
    flip.disabled = at === 0;
    row.replaceChildren(...strip.images.map((image, place) => {
      const button = element("button", { type: "button", "class": areTwins ? "is-twin" : "", "aria-label": image.alt }, element("img", { src: areTwins ? twins.images[place].src : image.src, alt: "" }));
      button.addEventListener("click", () => {
        const isTwin = button.classList.toggle("is-twin");
        button.firstChild.src = isTwin ? twins.images[place].src : image.src;
        button.setAttribute("aria-label", isTwin ? twins.images[place].alt : image.alt);
      });
      return button;
    }));
  }

  method.append(...methods.map((name) => element("option", { value: name }, name)));
  slider.value = "1";
  slider.addEventListener("input", show);
  method.addEventListener("change", show);
  flip.addEventListener("click", () => {
    flip.setAttribute("aria-pressed", String(flip.getAttribute("aria-pressed") !== "true"));
    show();
  });
  slider.max = ofMethod().length;
  slider.value = slider.max;
  show();
}
