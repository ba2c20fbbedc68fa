"use strict";

// The slider fades every overlay of the page.
const slider = document.getElementById("overlay");
const shown = document.getElementById("overlay-value");
function fade() {
  document.documentElement.style.setProperty("--overlay", String(slider.value / 100));
  shown.textContent = slider.value + " %";
  slider.setAttribute("aria-valuetext", slider.value + " percent");
}
if (slider) {
  slider.addEventListener("input", fade);
  fade(); // a browser may restore an earlier position
}

// A press on a column's head sorts the table by it; a second press turns the order round.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = [...head.parentElement.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.children[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what was not measured stays last
      const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -difference : difference;
    };
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(order));
  });
}
