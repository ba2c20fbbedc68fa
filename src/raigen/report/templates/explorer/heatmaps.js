// Heatmaps show while one points at an image. The slider keeps them on, as strong as one likes.
const slider = document.getElementById("overlay");
const overlayValue = document.getElementById("overlay-value");
function fade() {
  document.documentElement.style.setProperty("--overlay", String(slider.value / 100));
  overlayValue.textContent = slider.value === "0" ? "on pointing" : slider.value + " %";
  slider.setAttribute("aria-valuetext", slider.value === "0" ? "only on pointing" : slider.value + " percent");
}
if (slider) {
  slider.addEventListener("input", fade);
  fade(); // a browser may restore an earlier position
}
